// How sure the beam is: what share of its probability agrees with each character and word of a hypothesis.
#pragma once

#include <cstdint>
#include <vector>

#include "search.h"

namespace longhand {

// The labels of a prefix, from the first character to the last.
std::vector<std::uint32_t> labels_to(const PrefixTree& tree, std::uint32_t node);

// softmax(scale * score) over the prefixes.
std::vector<double> beam_shares(const std::vector<FinalPrefix>& finals, double scale);

struct WordRange {
    std::size_t begin, end;  // characters begin .. end - 1
};

std::vector<WordRange> word_ranges(const std::vector<bool>& is_space);

struct Support {
    std::vector<double> characters;  // per character: share of the beam that has it in this place
    std::vector<WordRange> word_ranges;
    std::vector<double> words;  // per word: share of the beam that has the whole word in this place
};

// What the beam says to the text texts[chosen]. "In this place" is by alignment of the two texts (longest
// common subsequence), not by frames: the same character may be a frame or two apart in two prefixes.
Support support_of(std::size_t chosen, const std::vector<std::vector<std::uint32_t>>& texts,
                   const std::vector<std::vector<bool>>& spaces, const std::vector<double>& shares);

}  // namespace longhand
