#include "scorer.h"

#include <algorithm>
#include <limits>

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
    : options_(options),
      values_(options.options),
      cache_(cache),
      has_hotwords_(!options.hotwords.empty()),
      weighs_figures_(values_.figures_weight != 1.0) {
    for (int pending = 0; pending < 4; ++pending) {
        for (int next = 0; next < 5; ++next) {
            const auto before = static_cast<Pending>(pending);
            const TokenStep step =
                options.uses_words ? token_step(before, static_cast<CharacterClass>(next)) : TokenStep{};
            steps_[pending][next] = step;
            // Figures count less, which is more where it is a malus.
            double gain = std::max(values_.character_bonus, values_.figures_weight * values_.character_bonus);
            gain += std::max(values_.word_bonus, values_.figures_weight * values_.word_bonus) *
                    step.ended(before);
            // What an unknown word in capitals gets back where a digit follows.
            if (before == Pending::kWord && step.closes &&
                static_cast<CharacterClass>(next) == CharacterClass::kDigit)
                gain += (1.0 - values_.figures_weight) * values_.unknown_word_penalty;
            bounds_[pending][next] = {gain, step.closes};
            headroom_[pending] = next == 0 ? gain : std::max(headroom_[pending], gain);
        }
    }
}

ModelState Scorer::start() const {
    ModelState state;
    if (cache_.words) state.words = cache_.words->intern(options_.word_start);
    if (cache_.characters) state.characters = cache_.characters->intern(options_.character_start);
    return state;
}

double Scorer::largest_final_gain(const ModelState& state) const {
    if (!options_.uses_words || state.pending == Pending::kNothing) return 0.0;
    const double bonus =
        std::max(0.0, values_.word_bonus) * (state.pending == Pending::kWordApostrophe ? 2 : 1);
    return bonus + std::max(0.0, state.deposit);
}

// Most prefixes are scored and never extended: only those that are have their state worked out.
std::uint32_t Scorer::character_state(PrefixTree& tree, std::uint32_t node) {
    PrefixNode& own = tree[node];
    work_out_character_state(tree, own.parent, own.label, own.state);
    return own.state.characters;
}

void Scorer::work_out_character_state(PrefixTree& tree, std::uint32_t parent, std::uint32_t label,
                                      ModelState& state) {
    if (state.characters != ModelState::kNotYet) return;
    const std::uint32_t token = options_.model->character_tokens[label];
    state.characters = cache_.characters->step(tree[parent].state.characters, token).target;
}

void Scorer::extend(PrefixTree& tree, std::uint32_t parent, std::uint32_t label, ModelState& state) {
    state = tree[parent].state;
    const double share = character_share(tree[parent], label);
    state.score += share * values_.character_bonus;
    if (options_.uses_characters) {
        const std::uint32_t token = options_.model->character_tokens[label];
        const float score = cache_.characters->score(character_state(tree, parent), token);
        state.characters = ModelState::kNotYet;
        state.character_score += score;
        state.score += share * values_.character_weight * score;
    }
    state.code = is_code(state, label);
    if (options_.uses_words) extend_words(tree, parent, label, state);
    if (has_hotwords_) state.score += move_hotword(tree[parent], label, state.hotword);
}

float Scorer::gain(PrefixTree& tree, std::uint32_t parent, std::uint32_t label) {
    const ModelState& before = tree[parent].state;
    const TokenStep step = token_step_of(before, label);
    if (step.closes || step.single) {
        ModelState after;
        extend(tree, parent, label, after);
        return after.forbidden ? -std::numeric_limits<float>::infinity()
                               : static_cast<float>(after.score - before.score);
    }
    const double share = character_share(tree[parent], label);
    double gain = share * values_.character_bonus;
    if (has_hotwords_) {
        std::uint32_t hotword = before.hotword;
        gain += move_hotword(tree[parent], label, hotword);
    }
    if (options_.uses_characters) {
        const std::uint32_t token = options_.model->character_tokens[label];
        const float score = cache_.characters->score(character_state(tree, parent), token);
        gain += share * values_.character_weight * score;
    }
    // Nothing is known of a word and an apostrophe, as in extend_words().
    if (step.pending == Pending::kNothing || step.pending == Pending::kWordApostrophe)
        return static_cast<float>(gain);
    const std::uint32_t from = step.continues ? before.lexicon : Lexicon::kRoot;
    if (options_.model->lexicon->can_step(from, options_.model->symbols[label]))
        return static_cast<float>(gain);
    const std::uint32_t expected = step.continues ? before.hotword_lexicon : Lexicon::kRoot;
    if (hotword_step(expected, label) != Lexicon::kDead) return static_cast<float>(gain);
    ModelState open;
    open.pending = step.pending;
    open.length = step.continues ? before.length + 1 : 1;
    open.capitals = in_capitals(before, step.continues, label);
    open.code = is_code(before, label);
    open.penalised = step.continues && before.penalised;
    open.deposit = step.continues ? before.deposit : 0.0;
    penalise(open, open_penalty(open));
    if (open.forbidden) return -std::numeric_limits<float>::infinity();
    return static_cast<float>(gain + open.score);
}

std::uint64_t Scorer::history(PrefixTree& tree, std::uint32_t parent, std::uint32_t label, ModelState& own) {
    std::uint64_t hash = 0;
    const auto mix = [&hash](std::uint64_t value) {
        hash = (hash ^ value) * kHashMultiplier;
        hash ^= hash >> 29;
    };
    mix(label);  // alone: labels and nodes of the lexicon are small numbers that run in parallel
    if (options_.uses_characters) {
        work_out_character_state(tree, parent, label, own);
        mix(own.characters);
    }
    const auto mix_words = [&](const ModelState& state) {
        mix((static_cast<std::uint64_t>(state.words) << 32) + state.lexicon);
        if (has_hotwords_) mix((static_cast<std::uint64_t>(state.hotword_lexicon) << 32) + state.hotword);
        const std::uint64_t length = values_.open_unknown_penalty && state.penalised ? state.length : 0;
        mix((length << 8) + static_cast<std::uint64_t>(state.pending) * 8 + state.code * 4 +
            state.capitals * 2 + state.penalised);
    };
    mix_words(own);
    // Behind "word'" either the word goes on or it ended before the apostrophe: both states count.
    if (own.pending == Pending::kWordApostrophe) mix_words(tree[parent].state);
    return hash | 1;  // 0 is no history
}

void Scorer::extend_words(const PrefixTree& tree, std::uint32_t parent, std::uint32_t label,
                          ModelState& state) {
    const Lexicon& hotwords = options_.hotwords.lexicon();
    const TokenStep step = token_step_of(state, label);
    if (step.closes) close_token(tree, parent, is_digit(label), state);
    if (step.single) {
        const std::uint32_t word = options_.model->single_tokens[label];
        const bool known = word != Lexicon::kNoWord ||
                           (has_hotwords_ && hotwords.word(hotword_step(Lexicon::kRoot, label)) == 0);
        score_token(word, known, Pending::kNothing, 1.0, state);
    }
    if (!step.continues) {
        state.lexicon = state.hotword_lexicon = Lexicon::kRoot;
        state.length = 0;
    }
    state.pending = step.pending;
    state.capitals = in_capitals(state, step.continues, label);
    if (step.pending == Pending::kNothing) return;
    ++state.length;
    state.lexicon = options_.model->lexicon->step(state.lexicon, options_.model->symbols[label]);
    if (cache_.words) {
        const std::uint32_t word = options_.model->lexicon->word(state.lexicon);
        if (word != Lexicon::kNoWord) cache_.words->prefetch(state.words, word);  // it may end here
    }
    state.hotword_lexicon = hotword_step(state.hotword_lexicon, label);
    // An apostrophe behind a word may turn out to be a quotation mark: nothing is known yet.
    if (step.pending == Pending::kWordApostrophe) return;
    if (state.lexicon == Lexicon::kDead && state.hotword_lexicon == Lexicon::kDead)
        penalise(state, open_penalty(state));
}

std::uint32_t Scorer::hotword_step(std::uint32_t node, std::uint32_t label) const {
    if (!has_hotwords_) return Lexicon::kDead;
    return options_.hotwords.lexicon().step(node, options_.hotword_symbols[label]);
}

// What an open token that no known word begins like has to have paid.
double Scorer::open_penalty(const ModelState& state) const {
    // A code's words are short and expected to be unknown: they cost from the start what they do in the end.
    if (state.capitals && state.code) return values_.figures_weight * values_.unknown_word_penalty;
    if (!values_.open_unknown_penalty) return values_.unknown_word_penalty;
    return *values_.open_unknown_penalty * std::max(1.0, state.length / BeamSearchOptions::kUsualWordLength);
}

void Scorer::penalise(ModelState& state, double due) const {
    if (values_.closed_lexicon) state.forbidden = true;
    // Numbers are an open class: one that the corpus did not have is no sign of a misreading.
    if (state.pending == Pending::kNumber) return;
    const double paid = state.penalised ? values_.unknown_word_penalty + state.deposit : 0.0;
    state.score += paid - due;
    state.deposit = due - values_.unknown_word_penalty;
    state.penalised = true;
}

void Scorer::close_token(const PrefixTree& tree, std::uint32_t node, bool digit_follows, ModelState& state) {
    const PrefixNode& last = tree[node];
    const bool apostrophe = last.state.pending == Pending::kWordApostrophe;
    const ModelState& word = apostrophe ? tree[last.parent].state : last.state;
    const Lexicon& hotwords = options_.hotwords.lexicon();
    const std::uint32_t number = options_.model->lexicon->word(word.lexicon);
    const bool known = number != Lexicon::kNoWord || hotwords.word(word.hotword_lexicon) == 0;
    // An apostrophe keeps a digit away from the word.
    const bool beside_digit = word.code || (digit_follows && !apostrophe);
    const bool figures = word.pending == Pending::kNumber || (word.capitals && beside_digit);
    score_token(number, known, word.pending, figures ? values_.figures_weight : 1.0, state);
    if (!apostrophe) return;
    const std::uint32_t mark = options_.model->single_tokens[last.label];
    const std::uint32_t expected = hotword_step(Lexicon::kRoot, last.label);
    score_token(mark, mark != Lexicon::kNoWord || hotwords.word(expected) == 0, Pending::kNothing, 1.0,
                state);
}

void Scorer::score_token(std::uint32_t word, bool known, Pending kind, double share, ModelState& state) {
    if (!known) {
        state.pending = kind;
        penalise(state, share * values_.unknown_word_penalty);
    }
    state.penalised = false;
    state.deposit = 0.0;
    state.score += share * values_.word_bonus;
    if (!cache_.words) return;
    const std::uint32_t number = word == Lexicon::kNoWord ? options_.model->word_model()->unknown() : word;
    const ModelAutomaton::Step step = cache_.words->step(state.words, number);
    state.words = step.target;
    state.word_score += step.score;
    state.score += share * values_.word_weight * step.score;
}

double Scorer::move_hotword(const PrefixNode& parent, std::uint32_t label, std::uint32_t& hotword) const {
    const HotwordAutomaton& automaton = options_.hotwords;
    const char32_t last = code_point(parent.label), next = code_point(label);
    const std::uint32_t from = hotword;
    hotword = automaton.step(from, last, next);
    const bool ends = from != HotwordAutomaton::kRoot && automaton.boundary(last, next);
    return (ends ? automaton.paid(from) : 0.0) + automaton.credit(hotword) - automaton.credit(from);
}

ModelState Scorer::finish(PrefixTree& tree, std::uint32_t node, double least) {
    ModelState state = tree[node].state;
    if (options_.uses_words && state.pending != Pending::kNothing) close_token(tree, node, false, state);
    if (has_hotwords_)
        state.score += options_.hotwords.paid(state.hotword) - options_.hotwords.credit(state.hotword);
    if (!values_.sentence_end || state.score < least) return state;
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
