// The arithmetic that runs over all labels or all beams: plain loops in a form that the compiler vectorises,
// compiled for several instruction sets and chosen when the library loads.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(LONGHAND_NO_CLONES)
#define LONGHAND_CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define LONGHAND_CLONES
#endif

namespace longhand {

struct RowSummary {
    float maximum;
    bool has_nan;
};

RowSummary summarise(const float* row, std::size_t count);
// The first index whose value is `maximum`.
std::size_t find_value(const float* row, std::size_t count, float maximum);
// out[i] = exp(row[i] * scale - shift), 0 where that is below e^-700. Relative error below 1e-13.
void exponentials(const float* row, std::size_t count, double scale, double shift, double* out);
double sum(const double* values, std::size_t count);
// Writes the indices of values >= threshold, ascending; returns how many.
std::size_t at_least(const float* row, std::size_t count, float threshold, std::uint32_t* out);

// One frame's change of the beams that are there already (see search.h for the formula).
struct BeamColumns {
    const std::int32_t* label;  // last label; the one past the alphabet for the empty prefix
    const std::int32_t*
        parent;  // slot of the prefix without the last label; the one past the beams if it is not there
    const double* differs;    // 1 if the parent's last label is another one, else 0
    const double* blank;      // probability of the paths that end with a blank
    const double* label_end;  // ... with the last label
    const double* model;      // what the language models add
    double* new_blank;
    double* new_label_end;
    double* total;  // log(new_blank + new_label_end) + model
};
void advance_sum(const BeamColumns& beams, std::size_t count, const double* probabilities,
                 double blank_probability);
void advance_max(const BeamColumns& beams, std::size_t count, const double* probabilities,
                 double blank_probability);

}  // namespace longhand
