#include "confidence.h"

#include <algorithm>
#include <cmath>

namespace longhand {

namespace {

// Prefixes with less than this share are compared at their two ends only: all of them together hardly count.
constexpr double kNegligibleShare = 1e-3;
// A stretch between two differences that is longer than this is taken as different.
constexpr std::size_t kLargestTable = 1u << 16;

using Labels = std::vector<std::uint32_t>;

// For each character of `a` the place in `b` that it is aligned with, or -1.
class TextAlignment {
  public:
    const std::vector<int>& align(const Labels& a, const Labels& b, bool middle) {
        match_.assign(a.size(), -1);
        const std::size_t shorter = std::min(a.size(), b.size());
        std::size_t head = 0, tail = 0;
        while (head < shorter && a[head] == b[head]) ++head;
        while (tail < shorter - head && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) ++tail;
        for (std::size_t i = 0; i < head; ++i) match_[i] = static_cast<int>(i);
        for (std::size_t i = 0; i < tail; ++i) match_[a.size() - 1 - i] = static_cast<int>(b.size() - 1 - i);
        if (middle) align_middle(a, b, head, a.size() - head - tail, b.size() - head - tail);
        return match_;
    }

  private:
    // Longest common subsequence of a[head ..] and b[head ..], n and m characters long.
    void align_middle(const Labels& a, const Labels& b, std::size_t head, std::size_t n, std::size_t m) {
        if (n == 0 || m == 0 || (n + 1) * (m + 1) > kLargestTable) return;
        const auto at = [m](std::size_t i, std::size_t j) { return i * (m + 1) + j; };
        table_.assign((n + 1) * (m + 1), 0);
        for (std::size_t i = n; i-- > 0;) {
            for (std::size_t j = m; j-- > 0;) {
                const bool same = a[head + i] == b[head + j];
                table_[at(i, j)] = same ? static_cast<std::uint16_t>(table_[at(i + 1, j + 1)] + 1)
                                        : std::max(table_[at(i + 1, j)], table_[at(i, j + 1)]);
            }
        }
        for (std::size_t i = 0, j = 0; i < n && j < m;) {
            if (a[head + i] == b[head + j]) {
                match_[head + i++] = static_cast<int>(head + j++);
            } else if (table_[at(i + 1, j)] >= table_[at(i, j + 1)]) {
                ++i;
            } else {
                ++j;
            }
        }
    }

    std::vector<int> match_;
    std::vector<std::uint16_t> table_;
};

bool agrees(const WordRange& word, const std::vector<int>& match, const std::vector<bool>& other_spaces) {
    const int first = match[word.begin];
    if (first < 0 || (first > 0 && !other_spaces[static_cast<std::size_t>(first) - 1])) return false;
    for (std::size_t i = word.begin; i < word.end; ++i) {
        if (match[i] != first + static_cast<int>(i - word.begin)) return false;
    }
    const std::size_t after = static_cast<std::size_t>(first) + (word.end - word.begin);
    return after == other_spaces.size() || other_spaces[after];
}

}  // namespace

std::vector<std::uint32_t> labels_to(const PrefixTree& tree, std::uint32_t node) {
    std::vector<std::uint32_t> labels;
    for (; node != PrefixTree::kRoot; node = tree[node].parent) labels.push_back(tree[node].label);
    std::reverse(labels.begin(), labels.end());
    return labels;
}

std::vector<double> beam_shares(const std::vector<FinalPrefix>& finals, double scale) {
    std::vector<double> shares;
    double total = 0.0;
    for (const FinalPrefix& prefix : finals) {
        shares.push_back(std::exp(scale * (prefix.score() - finals.front().score())));
        total += shares.back();
    }
    for (double& share : shares) share /= total;
    return shares;
}

std::vector<WordRange> word_ranges(const std::vector<bool>& is_space) {
    std::vector<WordRange> ranges;
    for (std::size_t i = 0; i < is_space.size(); ++i) {
        if (is_space[i]) continue;
        if (i == 0 || is_space[i - 1]) ranges.push_back({i, i});
        ranges.back().end = i + 1;
    }
    return ranges;
}

Support support_of(std::size_t chosen, const std::vector<Labels>& texts,
                   const std::vector<std::vector<bool>>& spaces, const std::vector<double>& shares) {
    Support support;
    support.characters.assign(texts[chosen].size(), 0.0);
    support.word_ranges = word_ranges(spaces[chosen]);
    support.words.assign(support.word_ranges.size(), 0.0);
    TextAlignment alignment;
    for (std::size_t other = 0; other < texts.size(); ++other) {
        const bool middle = shares[other] >= kNegligibleShare;
        const auto& match = alignment.align(texts[chosen], texts[other], middle);
        for (std::size_t i = 0; i < match.size(); ++i)
            support.characters[i] += match[i] >= 0 ? shares[other] : 0.0;
        for (std::size_t w = 0; w < support.words.size(); ++w) {
            if (agrees(support.word_ranges[w], match, spaces[other])) support.words[w] += shares[other];
        }
    }
    for (auto* values : {&support.characters, &support.words}) {
        for (double& value : *values)
            value = std::min(value, 1.0);  // the sum of the shares may round above 1
    }
    return support;
}

}  // namespace longhand
