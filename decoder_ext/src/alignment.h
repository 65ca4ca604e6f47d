// Where the characters of a hypothesis stand: the most probable path that collapses to it.
#pragma once

#include <cstdint>
#include <vector>

#include "longhand_decoder/decoder.h"

namespace longhand {

struct FrameRange {
    int first, last;  // inclusive
};

// Viterbi alignment. `first_frames` says when each prefix entered the beam, in rising order: no character is
// looked for earlier, nor long after its successor came, so that time and memory grow with the frames and not
// with frames times characters. Throws nothing; a text that no path spells gets its characters at
// `first_frames`.
std::vector<FrameRange> align(const LogProbs& line, std::uint32_t blank,
                              const std::vector<std::uint32_t>& labels, const std::vector<int>& first_frames);

}  // namespace longhand
