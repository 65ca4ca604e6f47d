#include "capitals.h"

#include "frame_math.h"

namespace longhand {

namespace {
// A word or two in capitals do not make a line of them: the models know the common ones, such as "BBC", as
// they are.
constexpr std::size_t kLeastCapitals = 4;
}  // namespace

bool is_in_capitals(const LogProbs& line, const LabelSet& labels) {
    std::size_t capitals = 0, small = 0;
    std::size_t previous = labels.blank();
    for (std::size_t t = 0; t < line.frames; ++t) {
        const float* row = line.values + t * line.labels;
        const RowSummary summary = summarise(row, line.labels);
        if (summary.has_nan) return false;
        // Most frames are blank.
        const std::size_t best = row[labels.blank()] == summary.maximum
                                     ? labels.blank()
                                     : find_value(row, line.labels, summary.maximum);
        if (best != previous) {
            capitals += labels.is_capital(static_cast<std::uint32_t>(best));
            small += labels.is_small(static_cast<std::uint32_t>(best));
        }
        previous = best;
    }
    return capitals >= kLeastCapitals && capitals >= 3 * small;
}

}  // namespace longhand
