#include "scorer.h"

#include <algorithm>

namespace longhand {

namespace {
// At most this many arcs are carried over from one line to the next, 16 bytes each at a load of a half or
// less.
constexpr std::size_t kArcsKept = std::size_t{1} << 18;
}  // namespace

void ScoreCache::trim() {
    if (words) words->trim(kArcsKept);
    if (characters) characters->trim(kArcsKept);
}

Scorer::Scorer(const PreparedOptions& options, ScoreCache& cache)
    : options_(options), values_(options.options), cache_(cache), has_hotwords_(!options.hotwords.empty()) {
    const double hotword_gain = has_hotwords_ ? std::max(0.0, options.hotwords.largest_credit()) : 0.0;
    for (int pending = 0; pending < 4; ++pending) {
        for (int next = 0; next < 5; ++next) {
            const auto before = static_cast<Pending>(pending);
            const TokenStep step = token_step(before, static_cast<CharacterClass>(next));
            double gain = values_.character_bonus + hotword_gain;
            if (options.uses_words) gain += values_.word_bonus * step.ended(before);
            gains_[pending][next] = gain;
            largest_gain_ = pending + next == 0 ? gain : std::max(largest_gain_, gain);
        }
    }
}

ModelState Scorer::start() const {
    ModelState state;
    if (cache_.words) state.words = cache_.words->intern(options_.word_start);
    if (cache_.characters) state.characters = cache_.characters->intern(options_.character_start);
    return state;
}

// Most prefixes are scored and never extended: only those that are have their state worked out.
std::uint32_t Scorer::character_state(PrefixTree& tree, std::uint32_t node) {
    PrefixNode& own = tree[node];
    if (own.state.characters == ModelState::kNotYet) {
        const std::uint32_t before = tree[own.parent].state.characters;
        own.state.characters = cache_.characters->target(before, options_.model->character_tokens[own.label]);
    }
    return own.state.characters;
}

ModelState Scorer::extend(PrefixTree& tree, std::uint32_t parent, std::uint32_t label) {
    ModelState state = tree[parent].state;
    state.score += values_.character_bonus;
    if (options_.uses_characters) {
        const std::uint32_t token = options_.model->character_tokens[label];
        const float score = cache_.characters->score(character_state(tree, parent), token);
        state.characters = ModelState::kNotYet;
        state.character_score += score;
        state.score += values_.character_weight * score;
    }
    if (options_.uses_words) extend_words(tree, parent, label, state);
    if (has_hotwords_) extend_hotwords(tree[parent], label, state);
    return state;
}

std::uint64_t Scorer::history(PrefixTree& tree, std::uint32_t node) {
    std::uint64_t hash = tree[node].label;
    const auto mix = [&hash](std::uint64_t value) {
        hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    };
    if (options_.uses_characters) mix(character_state(tree, node));
    const PrefixNode& own = tree[node];
    // Behind "word'" either the word goes on or it ended before the apostrophe: both states count.
    const bool two = own.state.pending == Pending::kWordApostrophe;
    for (const ModelState* state : {&own.state, two ? &tree[own.parent].state : &own.state}) {
        mix(state->words);
        mix(state->lexicon);
        mix(state->hotword_lexicon);
        mix(state->hotword);
        mix(static_cast<std::uint64_t>(state->pending) * 2 + state->penalised);
    }
    return hash;
}

void Scorer::extend_words(const PrefixTree& tree, std::uint32_t parent, std::uint32_t label,
                          ModelState& state) {
    const Lexicon& lexicon = *options_.model->lexicon;
    const Lexicon& hotwords = options_.hotwords.lexicon();
    const CharacterClass next = options_.classes[label];
    const TokenStep step = token_step(state.pending, next);
    if (step.closes) close_token(tree, parent, state);
    const char32_t code = code_point(label);
    if (step.single) {
        const std::uint32_t word = options_.model->single_tokens[label];
        const bool known =
            word != Lexicon::kNoWord || hotwords.word(hotwords.step(Lexicon::kRoot, code)) == 0;
        score_token(word, known, Pending::kNothing, state);
    }
    if (!step.continues) {
        state.lexicon = state.hotword_lexicon = Lexicon::kRoot;
        state.penalised = false;
    }
    state.pending = step.pending;
    if (step.pending == Pending::kNothing) return;
    state.lexicon = lexicon.step(state.lexicon, code);
    state.hotword_lexicon = hotwords.step(state.hotword_lexicon, code);
    // An apostrophe behind a word may turn out to be a quotation mark: nothing is known yet.
    if (step.pending == Pending::kWordApostrophe) return;
    if (state.lexicon == Lexicon::kDead && state.hotword_lexicon == Lexicon::kDead) penalise(state);
}

void Scorer::penalise(ModelState& state) const {
    if (values_.closed_lexicon) state.forbidden = true;
    // Numbers are an open class: one that the corpus did not have is no sign of a misreading.
    if (state.penalised || state.pending == Pending::kNumber) return;
    state.penalised = true;
    state.score -= values_.unknown_word_penalty;
}

void Scorer::close_token(const PrefixTree& tree, std::uint32_t node, ModelState& state) {
    const PrefixNode& last = tree[node];
    const bool apostrophe = last.state.pending == Pending::kWordApostrophe;
    const ModelState& word = apostrophe ? tree[last.parent].state : last.state;
    const Lexicon& hotwords = options_.hotwords.lexicon();
    const std::uint32_t number = options_.model->lexicon->word(word.lexicon);
    const bool known = number != Lexicon::kNoWord || hotwords.word(word.hotword_lexicon) == 0;
    score_token(number, known, word.pending, state);
    state.penalised = false;
    if (!apostrophe) return;
    const std::uint32_t mark = options_.model->single_tokens[last.label];
    const std::uint32_t expected = hotwords.step(Lexicon::kRoot, code_point(last.label));
    score_token(mark, mark != Lexicon::kNoWord || hotwords.word(expected) == 0, Pending::kNothing, state);
    state.penalised = false;
}

void Scorer::score_token(std::uint32_t word, bool known, Pending kind, ModelState& state) {
    if (!known) {
        state.pending = kind;
        penalise(state);
    }
    state.score += values_.word_bonus;
    if (!cache_.words) return;
    const std::uint32_t number = word == Lexicon::kNoWord ? options_.model->word_model()->unknown() : word;
    const float score = cache_.words->score(state.words, number);
    state.words = cache_.words->target(state.words, number);
    state.word_score += score;
    state.score += values_.word_weight * score;
}

void Scorer::extend_hotwords(const PrefixNode& parent, std::uint32_t label, ModelState& state) const {
    const HotwordAutomaton& automaton = options_.hotwords;
    const char32_t last = code_point(parent.label), next = code_point(label);
    const std::uint32_t from = state.hotword;
    state.hotword = automaton.step(from, last, next);
    if (from != HotwordAutomaton::kRoot && HotwordAutomaton::boundary(last, next))
        state.score += automaton.paid(from);
    state.score += automaton.credit(state.hotword) - automaton.credit(from);
}

ModelState Scorer::finish(PrefixTree& tree, std::uint32_t node) {
    ModelState state = tree[node].state;
    if (options_.uses_words && state.pending != Pending::kNothing) close_token(tree, node, state);
    if (has_hotwords_)
        state.score += options_.hotwords.paid(state.hotword) - options_.hotwords.credit(state.hotword);
    if (!values_.sentence_end) return state;
    if (cache_.words && options_.uses_words) {
        const double end = cache_.words->score(state.words, options_.model->word_model()->end_of_sentence());
        state.word_score += end;
        state.score += values_.word_weight * end;
    }
    if (options_.uses_characters) {
        const std::uint32_t token = options_.model->character_model()->end_of_sentence();
        const double end = cache_.characters->score(character_state(tree, node), token);
        state.character_score += end;
        state.score += values_.character_weight * end;
    }
    return state;
}

}  // namespace longhand
