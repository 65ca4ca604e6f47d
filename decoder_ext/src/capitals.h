// Lines that are written in capitals throughout.
#pragma once

#include "model.h"

namespace longhand {

// Whether the best labels of a line's frames say so: at least four capitals, and three of four letters. A
// NaN, which the search refuses, makes it no such line.
bool is_in_capitals(const LogProbs& line, const LabelSet& labels);

}  // namespace longhand
