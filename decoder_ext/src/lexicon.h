// The tree of the known words: says at once when no word begins like this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace longhand {

// Words with their numbers in the language model, one behind the other: a few big pieces of memory are read
// faster than one a word.
struct WordList {
    void add(const std::u32string& word, std::uint32_t number) {
        text += word;
        words.push_back({static_cast<std::uint32_t>(text.size()), number});
    }
    struct Word {
        std::uint32_t end, number;
    };
    std::u32string text;
    std::vector<Word> words;
};

// Each node has a bit for each child, so that one look shows whether a character goes on, and counting bits
// finds the child (P. Bagwell, "Ideal Hash Trees", 2001). The commonest characters have a bit of their own;
// the others share one.
class Lexicon {
  public:
    static constexpr std::uint32_t kRoot = 0;
    static constexpr std::uint32_t kDead = 0xFFFFFFFFu;    // no word begins like this
    static constexpr std::uint32_t kNoWord = 0xFFFFFFFFu;  // words may begin like this, but it is none

    // A character as this lexicon knows it: below kShared its bit, else kShared and the character itself.
    using Symbol = std::uint32_t;
    static constexpr Symbol kShared = 63;

    Lexicon() : Lexicon(WordList{}) {}
    // Of equal words the first counts.
    explicit Lexicon(WordList list);

    Symbol symbol(char32_t character) const {
        const bool has_own = character < own_.size() && own_[character] != kShared;
        return has_own ? own_[character] : kShared + character;
    }

    // How many nodes there are, the root included. They are numbered in breadth-first order.
    std::size_t size() const { return symbols_.size(); }

    // The node one character further; kDead if there is none or `node` is dead.
    std::uint32_t step(std::uint32_t node, Symbol symbol) const {
        if (!may_step(node, symbol)) return kDead;
        const std::uint32_t child = first_of_bit(nodes_[node], symbol);
        return symbol < kShared ? child : step_shared(node, child, symbol);
    }
    // Whether there is such a node. Fetches it, for it will be wanted soon.
    bool can_step(std::uint32_t node, Symbol symbol) const {
        if (!may_step(node, symbol)) return false;
        const std::uint32_t child = first_of_bit(nodes_[node], symbol);
        __builtin_prefetch(&nodes_[child]);
        return symbol < kShared || step_shared(node, child, symbol) != kDead;
    }
    // The number of the word that ends here; kNoWord if none does.
    std::uint32_t word(std::uint32_t node) const { return node == kDead ? kNoWord : nodes_[node].word; }

  private:
    // In breadth-first order, so the children of node n are nodes_[n].first_child .. nodes_[n +
    // 1].first_child, in the order of their symbols.
    struct Node {
        std::uint64_t children = 0;  // a bit for each symbol
        std::uint32_t first_child = 0;
        std::uint32_t word = kNoWord;
    };

    static std::uint64_t bit(Symbol symbol) {
        return std::uint64_t{1} << (symbol < kShared ? symbol : kShared);
    }
    bool may_step(std::uint32_t node, Symbol symbol) const {
        return node != kDead && (nodes_[node].children & bit(symbol)) != 0;
    }
    static std::uint32_t first_of_bit(const Node& node, Symbol symbol) {
        return node.first_child + ones(node.children & (bit(symbol) - 1));
    }
    // std::bitset's count() is a call where the processor need not have an instruction for it.
    static std::uint32_t ones(std::uint64_t bits) {
        bits -= bits >> 1 & 0x5555555555555555u;
        bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
        bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
        return static_cast<std::uint32_t>(bits * 0x0101010101010101u >> 56);
    }
    std::uint32_t step_shared(std::uint32_t node, std::uint32_t first, Symbol symbol) const;
    void choose_own_bits(const std::u32string& text);

    std::vector<Node> nodes_;        // and one behind the last, for its first_child
    std::vector<Symbol> symbols_;    // per node; asked for where it is a shared one
    std::vector<std::uint8_t> own_;  // per character its bit; kShared if it has none of its own
};

}  // namespace longhand
