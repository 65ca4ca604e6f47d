// The arithmetic that runs over all labels or all beams, in vectors of fixed width, compiled for several
// instruction sets and chosen when the library loads.
#pragma once

#include <cstddef>
#include <cstdint>

// "arch=haswell" and its like would mean that very processor and no other maker's: levels are what counts.
#if defined(LONGHAND_NO_CLONES) || !defined(__x86_64__) || !defined(__linux__) || !defined(__GNUC__) || \
    defined(__clang__)
#define LONGHAND_CLONES
#elif __GNUC__ >= 12
#define LONGHAND_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LONGHAND_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

namespace longhand {

struct RowSummary {
    float maximum;
    bool has_nan;
};

RowSummary summarise(const float* row, std::size_t count);
// The same, and the indices of values >= threshold as at_least() writes them, in one pass.
RowSummary summarise(const float* row, std::size_t count, float threshold, std::uint32_t* out,
                     std::size_t& found);
// The first index whose value is `maximum`.
std::size_t find_value(const float* row, std::size_t count, float maximum);
// out[i] = exp((row[i] - maximum) * scale), for values up to `maximum`. Relative error
// below 1e-6 where the exponent is above -8; 0 below e^-700. `out` is written up to the next multiple of 8.
void exponentials(const float* row, std::size_t count, float maximum, double scale, double* out);
// The sum of the same, added up in single precision.
double exponential_sum(const float* row, std::size_t count, float maximum, double scale);
// Writes the indices of values >= threshold, ascending; returns how many.
std::size_t at_least(const float* row, std::size_t count, float threshold, std::uint32_t* out);

// One frame's change of the beams that are there already (see search.h for the formula).
struct BeamColumns {
    const std::int32_t* label;  // last label; the one past the alphabet for the empty prefix
    const std::int32_t*
        parent;  // slot of the prefix without the last label; 0, where no prefix is, if it is not there
    const double* differs;    // 1 if the parent's last label is another one, else 0
    const double* blank;      // probability of the paths that end with a blank
    const double* label_end;  // ... with the last label
    double* new_blank;
    double* new_label_end;
};
// The arrays hold `count` numbers; they are read and written up to the next multiple of kBeamLanes.
inline constexpr std::size_t kBeamLanes = 4;
void advance_sum(const BeamColumns& beams, std::size_t count, const double* probabilities,
                 double blank_probability);
void advance_max(const BeamColumns& beams, std::size_t count, const double* probabilities,
                 double blank_probability);
// total[i] = log(blank[i] + label_end[i]) + model[i]; returns the largest. `count` as above.
double scores_sum(const double* blank, const double* label_end, const double* model, std::size_t count,
                  double* total);
// total[i] = log(max(blank[i], label_end[i])) + model[i].
double scores_max(const double* blank, const double* label_end, const double* model, std::size_t count,
                  double* total);
// Writes the indices of a[i] + b[i] > threshold, ascending; returns how many. `count` as above; `out` has
// room for as many.
std::size_t sums_above(const double* a, const double* b, std::size_t count, double threshold,
                       std::uint32_t* out);
// The first index whose value is `wanted`, or one from `count` on. `count` as above.
std::size_t find_value(const std::uint64_t* values, std::size_t count, std::uint64_t wanted);

}  // namespace longhand
