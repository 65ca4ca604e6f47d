#include "frame_math.h"

#include <cstring>
#include <limits>

namespace longhand {

namespace {

template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

constexpr double kLn2High = 6.93147180369123816490e-01;  // 33 bits: k * kLn2High is exact for the k used here
constexpr double kLn2Low = 1.90821492927058770002e-10;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// e^x = 2^k e^r with |r| <= ln(2) / 2, and the Taylor series of e^r to the 11th power (error below 1e-14).
inline double exponential(double x) {
    constexpr double kRound =
        6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer in the low bits
    const double clamped = x < -700.0 ? -700.0 : x;
    const double shifted = clamped * 1.4426950408889634 + kRound;
    const double k = shifted - kRound;
    const double r = (clamped - k * kLn2High) - k * kLn2Low;
    double e = 1.0 / 39916800.0;
    e = e * r + 1.0 / 3628800.0;
    e = e * r + 1.0 / 362880.0;
    e = e * r + 1.0 / 40320.0;
    e = e * r + 1.0 / 5040.0;
    e = e * r + 1.0 / 720.0;
    e = e * r + 1.0 / 120.0;
    e = e * r + 1.0 / 24.0;
    e = e * r + 1.0 / 6.0;
    e = e * r + 0.5;
    e = e * r + 1.0;
    e = e * r + 1.0;
    const double scale = bits<double>((bits<std::uint64_t>(shifted) << 52) + (std::uint64_t{1023} << 52));
    return x < -700.0 ? 0.0 : e * scale;
}

// ln(x) = e ln(2) + 2 artanh((m - 1) / (m + 1)) with m in [sqrt(1/2), sqrt(2)]; -inf for 0 and denormal
// numbers.
inline double logarithm(double x) {
    const std::uint64_t raw = bits<std::uint64_t>(x);
    const std::uint64_t kHalfRoot = 0x3FE6A09E667F3BCDu;  // sqrt(1/2)
    const std::uint64_t offset = raw - kHalfRoot;
    // Exponents are between -1023 and 1024; 2048 is added so that the number under the shift is positive.
    const std::uint64_t biased = (offset + (std::uint64_t{2048} << 52)) >> 52;
    const double exponent = bits<double>(biased | 0x4330000000000000u) - 4503599627370496.0 - 2048.0;
    const double m = bits<double>((offset & 0x000FFFFFFFFFFFFFu) + kHalfRoot);
    const double s = (m - 1.0) / (m + 1.0);
    const double s2 = s * s;
    double sum = 1.0 / 17.0;
    sum = sum * s2 + 1.0 / 15.0;
    sum = sum * s2 + 1.0 / 13.0;
    sum = sum * s2 + 1.0 / 11.0;
    sum = sum * s2 + 1.0 / 9.0;
    sum = sum * s2 + 1.0 / 7.0;
    sum = sum * s2 + 1.0 / 5.0;
    sum = sum * s2 + 1.0 / 3.0;
    sum = sum * s2 + 1.0;
    const double value = exponent * kLn2High + (2.0 * s * sum + exponent * kLn2Low);
    return x < std::numeric_limits<double>::min() ? -kInfinity : value;
}

constexpr std::size_t kLanes = 16;

}  // namespace

LONGHAND_CLONES RowSummary summarise(const float* row, std::size_t count) {
    float best[kLanes];
    std::uint32_t odd[kLanes];
    for (std::size_t j = 0; j < kLanes; ++j) {
        best[j] = -std::numeric_limits<float>::infinity();
        odd[j] = 0;
    }
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (std::size_t j = 0; j < kLanes; ++j) {
            best[j] = row[i + j] > best[j] ? row[i + j] : best[j];
            odd[j] |= row[i + j] != row[i + j] ? 1u : 0u;
        }
    }
    for (std::size_t j = 0; i < count; ++i, ++j) {
        best[j] = row[i] > best[j] ? row[i] : best[j];
        odd[j] |= row[i] != row[i] ? 1u : 0u;
    }
    RowSummary out{best[0], odd[0] != 0};
    for (std::size_t j = 1; j < kLanes; ++j) {
        out.maximum = best[j] > out.maximum ? best[j] : out.maximum;
        out.has_nan |= odd[j] != 0;
    }
    return out;
}

LONGHAND_CLONES std::size_t at_least(const float* row, std::size_t count, float threshold,
                                     std::uint32_t* out) {
    std::size_t found = 0, i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        std::uint32_t any = 0;
        for (std::size_t j = 0; j < kLanes; ++j) any |= row[i + j] >= threshold ? 1u : 0u;
        if (any == 0) continue;
        for (std::size_t j = 0; j < kLanes; ++j) {
            out[found] = static_cast<std::uint32_t>(i + j);
            found += row[i + j] >= threshold ? 1 : 0;
        }
    }
    for (; i < count; ++i) {
        if (row[i] >= threshold) out[found++] = static_cast<std::uint32_t>(i);
    }
    return found;
}

LONGHAND_CLONES std::size_t find_value(const float* row, std::size_t count, float maximum) {
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        std::uint32_t any = 0;
        for (std::size_t j = 0; j < kLanes; ++j) any |= row[i + j] == maximum ? 1u : 0u;
        if (any != 0) break;
    }
    while (i < count && row[i] != maximum) ++i;
    return i;
}

LONGHAND_CLONES void exponentials(const float* row, std::size_t count, double scale, double shift,
                                  double* out) {
    for (std::size_t i = 0; i < count; ++i) out[i] = exponential(static_cast<double>(row[i]) * scale - shift);
}

LONGHAND_CLONES double sum(const double* values, std::size_t count) {
    double lanes[8] = {};
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (std::size_t j = 0; j < 8; ++j) lanes[j] += values[i + j];
    }
    for (std::size_t j = 0; i < count; ++i, ++j) lanes[j] += values[i];
    double total = 0.0;
    for (const double lane : lanes) total += lane;
    return total;
}

namespace {

// The look-ups that do not vectorise, apart from the arithmetic that does: what arrives from the parent goes
// to new_label_end, the probability of the last label to new_blank.
template <bool kBest>
inline void gather(const BeamColumns& beams, std::size_t count, const double* probabilities) {
    for (std::size_t i = 0; i < count; ++i) {
        const std::int32_t parent = beams.parent[i];
        const double blank = beams.blank[parent], label_end = beams.differs[i] * beams.label_end[parent];
        beams.new_label_end[i] = kBest ? (blank > label_end ? blank : label_end) : blank + label_end;
        beams.new_blank[i] = probabilities[beams.label[i]];
    }
}

}  // namespace

LONGHAND_CLONES void advance_sum(const BeamColumns& beams, std::size_t count, const double* probabilities,
                                 double blank_probability) {
    gather<false>(beams, count, probabilities);
    const double* __restrict blank = beams.blank;
    const double* __restrict label_end = beams.label_end;
    const double* __restrict model = beams.model;
    double* __restrict new_blank = beams.new_blank;
    double* __restrict new_label_end = beams.new_label_end;
    double* __restrict total = beams.total;
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i) {
        const double ends = (label_end[i] + new_label_end[i]) * new_blank[i];
        const double stays = (blank[i] + label_end[i]) * blank_probability;
        new_label_end[i] = ends;
        new_blank[i] = stays;
        total[i] = logarithm(ends + stays) + model[i];
    }
}

LONGHAND_CLONES void advance_max(const BeamColumns& beams, std::size_t count, const double* probabilities,
                                 double blank_probability) {
    gather<true>(beams, count, probabilities);
    const double* __restrict blank = beams.blank;
    const double* __restrict label_end = beams.label_end;
    const double* __restrict model = beams.model;
    double* __restrict new_blank = beams.new_blank;
    double* __restrict new_label_end = beams.new_label_end;
    double* __restrict total = beams.total;
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i) {
        const double best_end = label_end[i] > new_label_end[i] ? label_end[i] : new_label_end[i];
        const double ends = best_end * new_blank[i];
        const double stays = (blank[i] > label_end[i] ? blank[i] : label_end[i]) * blank_probability;
        new_label_end[i] = ends;
        new_blank[i] = stays;
        total[i] = logarithm(ends > stays ? ends : stays) + model[i];
    }
}

}  // namespace longhand
