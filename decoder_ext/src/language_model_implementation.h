// What the decoder's own files may know of a language model: KenLM's types stay in here.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "lexicon.h"
#include "lm/state.hh"
#include "lm/virtual_interface.hh"
#include "longhand_decoder/language_model.h"

namespace longhand {

// 2^64 / golden ratio: multiplicative hashing (D. Knuth, "The Art of Computer Programming", section 6.4).
inline constexpr std::uint64_t kHashMultiplier = 0x9E3779B97F4A7C15u;

class NgramLanguageModel::Implementation {
  public:
    Implementation(const std::string& path, bool mapped);

    // Natural log-probability of `word` behind `in`; `out` becomes the state behind it.
    float score(const lm::ngram::State& in, std::uint32_t word, lm::ngram::State& out) const;
    lm::ngram::State start(bool bos) const;
    std::uint32_t index(std::string_view token) const {
        return model_->BaseVocabulary().Index(StringPiece(token.data(), token.size()));
    }
    std::uint32_t unknown() const { return model_->BaseVocabulary().NotFound(); }
    std::uint32_t end_of_sentence() const { return model_->BaseVocabulary().EndSentence(); }
    int order() const { return model_->Order(); }
    const std::string& path() const { return path_; }
    // The vocabulary without <unk>, <s>, </s>. Its tree is built for whoever asks first: a decoder with a
    // list of words of its own never does.
    std::size_t vocabulary_size() const { return vocabulary_size_; }
    const Lexicon& lexicon() const;

  private:
    std::string path_;
    std::unique_ptr<const lm::base::Model> model_;
    std::size_t vocabulary_size_ = 0;
    mutable std::once_flag lexicon_once_;
    mutable WordList words_;  // until the lexicon is built
    mutable Lexicon lexicon_;
};

// The part of a model that decoding has met so far, as an automaton: states with numbers, and one arc for
// each word that was asked for behind a state. Beams of one line, and lines of one language, ask for the same
// arcs again and again; a look-up here is several times cheaper than in the model. For one thread at a time.
class ModelAutomaton {
  public:
    explicit ModelAutomaton(const NgramLanguageModel::Implementation& model);

    // The number of a state.
    std::uint32_t intern(const lm::ngram::State& state);
    // Natural log-probability of `word` behind a state.
    float score(std::uint32_t state, std::uint32_t word) { return arc(state, word, false).score; }
    // The same, and the state behind it. Most characters are scored and never followed, so that state is
    // worked out when it is asked for.
    struct Step {
        float score;
        std::uint32_t target;
    };
    Step step(std::uint32_t state, std::uint32_t word) {
        Arc& found = arc(state, word, true);
        if (found.target == kUnknown) follow(found);
        return {found.score, found.target};
    }
    // step() or score() for this word comes soon.
    void prefetch(std::uint32_t state, std::uint32_t word) const {
        __builtin_prefetch(&arcs_[slot((static_cast<std::uint64_t>(state) << 32) | word)]);
    }
    // Forgets everything if more than `limit` arcs are held. State numbers given out before are void then.
    void trim(std::size_t limit);

  private:
    static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
    static constexpr std::uint32_t kUnknown = 0xFFFFFFFFu;
    struct Arc {
        std::uint64_t key = kEmpty;  // state and word
        float score = 0.0f;
        std::uint32_t target = kUnknown;
    };

    // `follows`: whether an arc that is new learns its target at once.
    Arc& arc(std::uint32_t state, std::uint32_t word, bool follows) {
        const std::uint64_t key = (static_cast<std::uint64_t>(state) << 32) | word;
        std::size_t i = slot(key);
        while (arcs_[i].key != key) {
            if (arcs_[i].key == kEmpty) return add(key, follows);
            i = (i + 1) & arc_mask_;
        }
        return arcs_[i];
    }
    std::size_t slot(std::uint64_t key) const { return (key * kHashMultiplier >> 32) & arc_mask_; }
    Arc& add(std::uint64_t key, bool follows);
    Arc& empty_slot(std::uint64_t key);
    void follow(Arc& arc);
    void clear();
    void grow_arcs();
    void grow_states();
    static std::size_t hash(const lm::ngram::State& state);

    const NgramLanguageModel::Implementation& model_;
    // Hash tables with open addressing, at most half full.
    std::vector<Arc> arcs_;
    std::size_t arc_mask_ = 0, arc_count_ = 0;
    std::vector<lm::ngram::State> states_;
    std::vector<std::uint32_t> state_table_;  // numbers of states, kUnknown where empty
};

}  // namespace longhand
