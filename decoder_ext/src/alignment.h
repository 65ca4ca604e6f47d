// Where the characters of a hypothesis stand: the most probable path that collapses to it.
#pragma once

#include <cstdint>
#include <vector>

#include "longhand_decoder/decoder.h"

namespace longhand {

struct FrameRange {
    int first, last;  // inclusive
};

// Viterbi alignment. A text that no path spells in single precision, or whose paths would take too much
// memory, gets its characters spread evenly.
std::vector<FrameRange> align(const LogProbs& line, std::uint32_t blank,
                              const std::vector<std::uint32_t>& labels);

}  // namespace longhand
