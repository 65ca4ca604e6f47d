// The tree of the known words: says at once when no word begins like this.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace longhand {

class Lexicon {
  public:
    static constexpr std::uint32_t kRoot = 0;
    static constexpr std::uint32_t kDead = 0xFFFFFFFFu;    // no word begins like this
    static constexpr std::uint32_t kNoWord = 0xFFFFFFFFu;  // words may begin like this, but it is none

    Lexicon() : Lexicon(std::vector<std::pair<std::u32string, std::uint32_t>>{}) {}
    // Words with their numbers in the language model; of equal words the first counts.
    explicit Lexicon(std::vector<std::pair<std::u32string, std::uint32_t>> words);

    // The node one character further; kDead if there is none or `node` is dead.
    std::uint32_t step(std::uint32_t node, char32_t character) const;
    // The number of the word that ends here; kNoWord if none does.
    std::uint32_t word(std::uint32_t node) const { return node == kDead ? kNoWord : words_[node]; }
    std::size_t size() const { return count_; }

  private:
    // In breadth-first order, so the children of node n are nodes_[n].first_child .. nodes_[n +
    // 1].first_child. One array: whoever has found a child has its own children's place in the cache.
    struct Node {
        char32_t character;
        std::uint32_t first_child;
    };
    std::vector<Node> nodes_;
    std::vector<std::uint32_t> words_;  // per node; asked for where a word ends
    std::size_t count_ = 0;
};

}  // namespace longhand
