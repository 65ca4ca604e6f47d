// What the language models, the lexicon and the hotwords say about a prefix.
//
//   models(y) = word_weight * log P_word(tokens(y)) + word_bonus * |tokens(y)|
//               - unknown_word_penalty * |words of y outside the vocabulary|
//               + character_weight * log P_char(y) + character_bonus * |y|
//               + sum of the boosts of the hotwords in y
//
// where figures count figures_weight times: a token that is a number, a word in capitals beside a digit, and
// a character that is a digit, follows one, or is a capital with only capitals between itself and one before
// it.
//
// A token is scored when it ends. The penalty of an unknown word falls due as soon as no known word begins
// like it; where the options set another one for words that are still open, the difference is settled when
// the word ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "model.h"
#include "prefix_tree.h"

namespace longhand {

// What one thread has met of both models.
class ScoreCache {
  public:
    explicit ScoreCache(const DecoderModel& model) {
        if (model.word_model()) words.emplace(*model.word_model());
        if (model.character_model()) characters.emplace(*model.character_model());
    }
    void trim();

    std::optional<ModelAutomaton> words, characters;
};

class Scorer {
  public:
    Scorer(const PreparedOptions& options, ScoreCache& cache);

    ModelState start() const;
    // Makes `state` that of `parent` with one more label.
    void extend(PrefixTree& tree, std::uint32_t parent, std::uint32_t label, ModelState& state);
    // By how much one more label changes the score; -inf for what a closed lexicon forbids. Cheaper than
    // extend() where no token ends.
    float gain(PrefixTree& tree, std::uint32_t parent, std::uint32_t label);
    // The state of `node` if the line ends there. Where its score is below `least` already without the end of
    // the sentence, which cannot raise it, nobody is asked about that.
    ModelState finish(PrefixTree& tree, std::uint32_t node, double least);
    // A label of this class can raise the score of a prefix by no more than this, hotwords that begin with it
    // left out.
    double largest_gain(const ModelState& state, CharacterClass next) const {
        const Bound& bound = bounds_[static_cast<int>(state.pending)][static_cast<int>(next)];
        return bound.gain + (bound.closes && state.deposit > 0.0 ? state.deposit : 0.0) + hotword_gain(state);
    }
    // ... and no label by more than this.
    double largest_gain(const ModelState& state) const {
        return headroom_[static_cast<int>(state.pending)] + std::max(0.0, state.deposit) +
               hotword_gain(state);
    }
    // What such hotwords add to it.
    double hotword_start(std::uint32_t label) const {
        if (!has_hotwords_) return 0.0;
        return options_.hotwords.credit(
            options_.hotwords.step(HotwordAutomaton::kRoot, 0, code_point(label)));
    }
    bool has_hotwords() const { return has_hotwords_; }
    // How much of a prefix's score it has only on credit, for hotwords that have begun; of `parent` made
    // longer.
    double credit(const ModelState& state) const {
        return has_hotwords_ ? options_.hotwords.credit(state.hotword) : 0.0;
    }
    double credit(const PrefixTree& tree, std::uint32_t parent, std::uint32_t label) const {
        return has_hotwords_ ? options_.hotwords.credit(next_hotword(tree[parent], label)) : 0.0;
    }
    // The end of the line can raise it by no more than this.
    double largest_final_gain(const ModelState& state) const;

    // Equal for prefixes that the models will score alike from here on: `state` behind `parent` and `label`.
    std::uint64_t history(PrefixTree& tree, std::uint32_t parent, std::uint32_t label, ModelState& state);

  private:
    struct Bound {
        double gain = 0.0;
        bool closes = false;
    };
    // What a hotword that has begun can add with one more label.
    double hotword_gain(const ModelState& state) const {
        return state.hotword == HotwordAutomaton::kRoot ? 0.0 : options_.hotwords.largest_credit();
    }
    TokenStep token_step_of(const ModelState& state, std::uint32_t label) const {
        return steps_[static_cast<int>(state.pending)][static_cast<int>(options_.classes[label])];
    }
    std::uint32_t character_state(PrefixTree& tree, std::uint32_t node);
    void work_out_character_state(PrefixTree& tree, std::uint32_t parent, std::uint32_t label,
                                  ModelState& state);
    void extend_words(const PrefixTree& tree, std::uint32_t parent, std::uint32_t label, ModelState& state);
    std::uint32_t hotword_step(std::uint32_t node, std::uint32_t label) const;
    // The automaton's state behind one more label.
    std::uint32_t next_hotword(const PrefixNode& parent, std::uint32_t label) const {
        return options_.hotwords.step(parent.state.hotword, code_point(parent.label), code_point(label));
    }
    // Takes the automaton's state on by one more label; what that adds to the score.
    double move_hotword(const PrefixNode& parent, std::uint32_t label, std::uint32_t& hotword) const;
    void close_token(const PrefixTree& tree, std::uint32_t node, bool digit_follows, ModelState& state);
    // `share`: how much the token counts.
    void score_token(std::uint32_t word, bool known, Pending kind, double share, ModelState& state);
    bool is_digit(std::uint32_t label) const { return options_.classes[label] == CharacterClass::kDigit; }
    bool is_capital(std::uint32_t label) const { return options_.model->labels.is_capital(label); }
    // Whether a prefix and one more label end as codes do, and whether the open token is in capitals. Never
    // where figures count as much as anything.
    bool is_code(const ModelState& before, std::uint32_t label) const {
        return weighs_figures_ && (is_digit(label) || (before.code && is_capital(label)));
    }
    bool in_capitals(const ModelState& before, bool continues, std::uint32_t label) const {
        return weighs_figures_ && (!continues || before.capitals) && is_capital(label);
    }
    // How much the character model's word on this label counts.
    double character_share(const PrefixNode& parent, std::uint32_t label) const {
        if (!weighs_figures_) return 1.0;
        return is_digit(parent.label) || is_code(parent.state, label) ? values_.figures_weight : 1.0;
    }
    void penalise(ModelState& state, double due) const;
    double open_penalty(const ModelState& state) const;
    char32_t code_point(std::uint32_t label) const { return options_.model->labels.code_point(label); }

    const PreparedOptions& options_;
    const BeamSearchOptions& values_;
    ScoreCache& cache_;
    bool has_hotwords_;
    bool weighs_figures_;
    // Per kind of open token and class of the next character.
    Bound bounds_[4][5];
    TokenStep steps_[4][5];
    double headroom_[4] = {};  // the largest of each kind
};

}  // namespace longhand
