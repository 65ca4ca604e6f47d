#include "lexicon.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace longhand {

Lexicon::Lexicon(WordList list) {
    choose_own_bits(list.text);
    // From here on texts are symbols.
    for (char32_t& character : list.text) character = symbol(character);
    struct Word {
        std::uint64_t key;  // its first symbols, which mostly decide between two words
        std::uint32_t begin, end, number;
    };
    constexpr int kKeyBits = 7;
    std::vector<Word> words;
    words.reserve(list.words.size());
    std::uint32_t start = 0;
    for (const auto& [end, number] : list.words) {
        std::uint64_t key = 0;
        int shift = 64 - kKeyBits;
        for (std::uint32_t i = start; i < end && shift >= 0; ++i, shift -= kKeyBits) {
            key |= static_cast<std::uint64_t>(std::min(list.text[i], char32_t{kShared}) + 1) << shift;
            if (list.text[i] >= kShared) break;  // not told apart here: what follows must not count before it
        }
        words.push_back({key, start, end, number});
        start = end;
    }
    const auto text_of = [&list](const Word& word) {
        return std::u32string_view(list.text).substr(word.begin, word.end - word.begin);
    };
    std::stable_sort(words.begin(), words.end(), [&](const Word& a, const Word& b) {
        return a.key != b.key ? a.key < b.key : text_of(a) < text_of(b);
    });
    const auto equal = [&](const Word& a, const Word& b) {
        return a.key == b.key && text_of(a) == text_of(b);
    };
    words.erase(std::unique(words.begin(), words.end(), equal), words.end());

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
        if (begin < range.end && words[begin].end - words[begin].begin == range.depth)
            nodes_[node].word = words[begin++].number;
        while (begin < range.end) {
            const Symbol symbol = list.text[words[begin].begin + range.depth];
            std::size_t end = begin + 1;
            while (end < range.end && list.text[words[end].begin + range.depth] == symbol) ++end;
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

void Lexicon::choose_own_bits(const std::u32string& text) {
    char32_t largest = 0;
    for (const char32_t character : text) largest = std::max(largest, character);
    std::vector<std::size_t> counts(std::size_t{largest} + 1);
    for (const char32_t character : text) ++counts[character];
    std::vector<std::pair<std::size_t, char32_t>> order;
    for (char32_t character = 0; character <= largest; ++character) {
        if (counts[character] > 0) order.emplace_back(counts[character], character);
    }
    std::sort(order.rbegin(), order.rend());
    if (order.size() > kShared) order.resize(kShared);
    own_.assign(counts.size(), kShared);
    for (std::size_t i = 0; i < order.size(); ++i) own_[order[i].second] = static_cast<std::uint8_t>(i);
}

// `first` is the first child that shares the last bit.
std::uint32_t Lexicon::step_shared(std::uint32_t node, std::uint32_t first, Symbol symbol) const {
    for (std::uint32_t child = first; child < nodes_[node + 1].first_child; ++child) {
        if (symbols_[child] == symbol) return child;
    }
    return kDead;
}

}  // namespace longhand
