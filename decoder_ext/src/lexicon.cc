#include "lexicon.h"

#include <algorithm>

namespace longhand {

Lexicon::Lexicon(std::vector<std::pair<std::u32string, std::uint32_t>> words) {
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
    nodes_.push_back({0, 0});
    words_.push_back(kNoWord);
    for (std::size_t node = 0; node < level.size(); ++node) {
        const Range range = level[node];
        nodes_[node].first_child = static_cast<std::uint32_t>(level.size());
        std::size_t begin = range.begin;
        if (begin < range.end && words[begin].first.size() == range.depth)
            words_[node] = words[begin++].second;
        while (begin < range.end) {
            const char32_t character = words[begin].first[range.depth];
            std::size_t end = begin + 1;
            while (end < range.end && words[end].first[range.depth] == character) ++end;
            level.push_back({begin, end, range.depth + 1});
            nodes_.push_back({character, 0});
            words_.push_back(kNoWord);
            begin = end;
        }
    }
    nodes_.push_back({0, static_cast<std::uint32_t>(level.size())});
}

std::uint32_t Lexicon::step(std::uint32_t node, char32_t character) const {
    if (node == kDead) return kDead;
    std::uint32_t begin = nodes_[node].first_child, end = nodes_[node + 1].first_child;
    // Most nodes have few children: bisection is for the others.
    while (end - begin > 8) {
        const std::uint32_t middle = begin + (end - begin) / 2;
        (nodes_[middle].character <= character ? begin : end) = middle;
    }
    for (; begin < end; ++begin) {
        if (nodes_[begin].character != character) continue;
        // Its children are the next that will be asked for, some frames later.
        __builtin_prefetch(&nodes_[nodes_[begin].first_child]);
        return begin;
    }
    return kDead;
}

}  // namespace longhand
