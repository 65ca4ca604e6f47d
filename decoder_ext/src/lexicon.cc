#include "lexicon.h"

#include <algorithm>
#include <unordered_map>

namespace longhand {

Lexicon::Lexicon(std::vector<std::pair<std::u32string, std::uint32_t>> words) {
    choose_own_bits(words);
    // From here on texts are symbols.
    for (auto& [text, number] : words) {
        for (char32_t& character : text) character = symbol(character);
    }
    const auto less = [](const auto& a, const auto& b) { return a.first < b.first; };
    std::stable_sort(words.begin(), words.end(), less);
    const auto equal = [](const auto& a, const auto& b) { return a.first == b.first; };
    words.erase(std::unique(words.begin(), words.end(), equal), words.end());
    count_ = words.size();

    // Each node is the range of the sorted words that begin with it; its children split that range.
    struct Range {
        std::size_t begin, end, depth;
    };
    std::vector<Range> level{{0, words.size(), 0}};
    nodes_.emplace_back();
    symbols_.push_back(0);
    for (std::size_t node = 0; node < level.size(); ++node) {
        const Range range = level[node];
        nodes_[node].first_child = static_cast<std::uint32_t>(level.size());
        std::size_t begin = range.begin;
        if (begin < range.end && words[begin].first.size() == range.depth)
            nodes_[node].word = words[begin++].second;
        while (begin < range.end) {
            const Symbol symbol = words[begin].first[range.depth];
            std::size_t end = begin + 1;
            while (end < range.end && words[end].first[range.depth] == symbol) ++end;
            level.push_back({begin, end, range.depth + 1});
            nodes_[node].children |= bit(symbol);
            nodes_.emplace_back();
            symbols_.push_back(symbol);
            begin = end;
        }
    }
    nodes_.emplace_back();
    nodes_.back().first_child = static_cast<std::uint32_t>(level.size());
}

void Lexicon::choose_own_bits(const std::vector<std::pair<std::u32string, std::uint32_t>>& words) {
    std::unordered_map<char32_t, std::size_t> counts;
    for (const auto& [text, number] : words) {
        for (const char32_t character : text) ++counts[character];
    }
    std::vector<std::pair<std::size_t, char32_t>> order;
    for (const auto& [character, count] : counts) order.emplace_back(count, character);
    std::sort(order.rbegin(), order.rend());
    if (order.size() > kShared) order.resize(kShared);
    for (const auto& [count, character] : order) own_.push_back(character);
}

Lexicon::Symbol Lexicon::symbol(char32_t character) const {
    const auto found = std::find(own_.begin(), own_.end(), character);
    return found != own_.end() ? static_cast<Symbol>(found - own_.begin()) : kShared + character;
}

// `first` is the first child that shares the last bit.
std::uint32_t Lexicon::step_shared(std::uint32_t node, std::uint32_t first, Symbol symbol) const {
    for (std::uint32_t child = first; child < nodes_[node + 1].first_child; ++child) {
        if (symbols_[child] == symbol) return child;
    }
    return kDead;
}

}  // namespace longhand
