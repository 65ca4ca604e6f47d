// What the language models, the lexicon and the hotwords say about a prefix.
//
//   models(y) = word_weight * log P_word(tokens(y)) + word_bonus * |tokens(y)|
//               - unknown_word_penalty * |words of y outside the vocabulary|
//               + character_weight * log P_char(y) + character_bonus * |y|
//               + sum of the boosts of the hotwords in y
//
// A token is scored when it ends. The penalty of an unknown word falls due as soon as no known word begins
// like it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "model.h"
#include "prefix_tree.h"

namespace longhand {

// The automata of both models, as far as one thread has met them.
struct ScoreCache {
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
    // The state of `parent` with one more label.
    ModelState extend(PrefixTree& tree, std::uint32_t parent, std::uint32_t label);
    // The state of `node` if the line ends there.
    ModelState finish(PrefixTree& tree, std::uint32_t node);
    // No label can raise a prefix's score by more than this.
    double largest_gain(Pending pending, CharacterClass next) const {
        return gains_[static_cast<int>(pending)][static_cast<int>(next)];
    }
    double largest_gain() const { return largest_gain_; }

    // Equal for prefixes that the models will score alike from here on.
    std::uint64_t history(PrefixTree& tree, std::uint32_t node);

  private:
    std::uint32_t character_state(PrefixTree& tree, std::uint32_t node);
    void extend_words(const PrefixTree& tree, std::uint32_t parent, std::uint32_t label, ModelState& state);
    void extend_hotwords(const PrefixNode& parent, std::uint32_t label, ModelState& state) const;
    void close_token(const PrefixTree& tree, std::uint32_t node, ModelState& state);
    void score_token(std::uint32_t word, bool known, Pending kind, ModelState& state);
    void penalise(ModelState& state) const;
    char32_t code_point(std::uint32_t label) const { return options_.model->labels.code_point(label); }

    const PreparedOptions& options_;
    const BeamSearchOptions& values_;
    ScoreCache& cache_;
    bool has_hotwords_;
    double gains_[4][5];
    double largest_gain_ = 0.0;
};

}  // namespace longhand
