// Finds the expected words in all prefixes at a cost that does not depend on how many there are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lexicon.h"
#include "longhand_decoder/language_model.h"
#include "longhand_decoder/options.h"
#include "unicode.h"

namespace longhand {

// An Aho-Corasick automaton (A. Aho, M. Corasick, 1975) whose matches begin and end where words do: a match
// is not preceded or followed by a letter if it begins or ends with one, and likewise for digits; where words
// end at spaces only, so do matches.
//
// The final score of a text gains the boost of every match. While a match is under way the prefix holds a
// share of its boost on credit, in proportion to the characters matched (`credit`), so that the beam does not
// lose it.
class HotwordAutomaton {
  public:
    static constexpr std::uint32_t kRoot = Lexicon::kRoot;

    HotwordAutomaton() : HotwordAutomaton({}, WordSplitting::kLetters) {}
    // Of hotwords with the same text the dearest counts. Throws std::invalid_argument.
    HotwordAutomaton(const std::vector<Hotword>& hotwords, WordSplitting splitting);

    bool empty() const { return nodes_.size() == 1; }
    // The state behind `next`, where `last` is the character before it (0 at the start of the line).
    std::uint32_t step(std::uint32_t state, char32_t last, char32_t next) const;
    // The boosts of the words that end at this state, to be paid when a word may end there.
    double paid(std::uint32_t state) const { return nodes_[state].paid; }
    double credit(std::uint32_t state) const { return nodes_[state].credit; }
    double largest_credit() const { return largest_credit_; }
    // Words may be unknown to the language model and yet expected: the tree of the hotwords' own words.
    const Lexicon& lexicon() const { return lexicon_; }

    // Whether a match may end at `last` or begin at `next`.
    bool boundary(char32_t last, char32_t next) const;

  private:
    // Where a node of the tree hangs, and the boost of the hotword that ends at it.
    struct Origin {
        std::uint32_t parent = kRoot;
        char32_t character = 0;
        std::optional<double> boost;
    };
    struct Node {
        std::uint32_t failure = kRoot;  // the longest proper suffix that may begin a match
        double paid = 0.0;
        double credit = 0.0;
    };
    void add(const std::u32string& text, double boost, std::vector<Origin>& origins);
    void link(const std::vector<Origin>& origins);

    WordSplitting splitting_;
    Lexicon tree_;             // of the hotwords as they stand, phrases too: its nodes are the states
    std::vector<Node> nodes_;  // per state
    double largest_credit_ = 0.0;
    Lexicon lexicon_;
};

}  // namespace longhand
