// From the prefixes that are left at the end of a line to hypotheses.
#pragma once

#include <string>
#include <vector>

#include "search.h"

namespace longhand {

// `line` is the whole line that was searched. At least one hypothesis: the empty text if nothing was left.
std::vector<Hypothesis> make_hypotheses(const PreparedOptions& options, const LogProbs& line,
                                        BeamSearch& search);

// The text of the first of them, and nothing else.
std::string best_text(const PreparedOptions& options, BeamSearch& search);

// The best label of each frame, repeats joined and blanks left out. `acoustic_score` is the log-probability
// of that one path, a character's confidence its highest probability, a word's and the line's the product of
// these.
Hypothesis greedy_hypothesis(const PreparedOptions& options, const LogProbs& line);

}  // namespace longhand
