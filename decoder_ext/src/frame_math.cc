#include "frame_math.h"

#include <cstring>
#include <limits>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
// No vector crosses from one object file to another: all functions on vectors are inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
// Lambdas as well: one of them that stays a function is compiled for the default processor, and takes vectors
// another way than a clone that calls it. So it happens without optimisation, and it crashes.
#define LONGHAND_INLINED __attribute__((always_inline))
#define LONGHAND_INLINE inline LONGHAND_INLINED

namespace longhand {

namespace {

// Vectors of 32 bytes: one register of AVX2. Where registers are narrower the compiler uses several.
using Floats = float __attribute__((vector_size(32)));
using Ints = std::int32_t __attribute__((vector_size(32)));
using Doubles = double __attribute__((vector_size(32)));
using Longs = std::int64_t __attribute__((vector_size(32)));
using Bits = std::uint64_t __attribute__((vector_size(32)));
using HalfFloats = float __attribute__((vector_size(16)));
constexpr std::size_t kFloats = 8, kDoubles = kBeamLanes;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();

template <class To, class From>
LONGHAND_INLINE To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

template <class Vector, class T>
LONGHAND_INLINE Vector load(const T* from) {
    Vector out;
    std::memcpy(&out, from, sizeof(out));
    return out;
}

template <class Vector, class T>
LONGHAND_INLINE void store(T* to, Vector value) {
    std::memcpy(to, &value, sizeof(value));
}

// The next values of a row that has `count` left; what it lacks is filled up.
LONGHAND_INLINE Floats load_some(const float* from, std::size_t count, float fill) {
    float values[kFloats] = {fill, fill, fill, fill, fill, fill, fill, fill};
    std::memcpy(values, from, count * sizeof(float));
    return load<Floats>(values);
}

// Calls f(vector) for a row. What is left at the end comes with the values before it, these replaced by
// `fill`: to fill up a vector in memory takes longer than several vectors.
template <class F>
LONGHAND_INLINE void for_each_vector(const float* row, std::size_t count, float fill, const F& f) {
    std::size_t i = 0;
    for (; i + kFloats <= count; i += kFloats) f(load<Floats>(row + i));
    if (i == count) return;
    if (count < kFloats) return f(load_some(row, count, fill));
    const auto seen = static_cast<std::int32_t>(i + kFloats - count);
    constexpr Ints kLanes = {0, 1, 2, 3, 4, 5, 6, 7};
    f(kLanes < seen ? Floats{} + fill : load<Floats>(row + count - kFloats));
}

// Whether a comparison of vectors was true anywhere.
template <class Mask>
LONGHAND_INLINE bool any(Mask mask) {
#ifdef __SSE2__
    struct Halves {
        __m128i low, high;
    };
    const auto halves = bits<Halves>(mask);
    return _mm_movemask_epi8(_mm_or_si128(halves.low, halves.high)) != 0;
#else
    const Longs quarters = bits<Longs>(mask);
    return (quarters[0] | quarters[1] | quarters[2] | quarters[3]) != 0;
#endif
}

LONGHAND_INLINE Floats larger(Floats a, Floats b) {
    return a > b ? a : b;
}

// ln(2) in two parts, as in fdlibm's e_exp.c.
constexpr double kLn2High = 6.93147180369123816490e-01;  // 33 bits: k * kLn2High is exact for the k used here
constexpr double kLn2Low = 1.90821492927058770002e-10;

// e^x = 2^k e^r with |r| <= ln(2) / 2, and the Taylor series of e^r to the 11th power (error below 1e-14).
inline double exponential(double x) {
    constexpr double kRound =
        6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer in the low bits
    if (!(x >= -700.0)) return 0.0;
    const double shifted = x * 1.4426950408889634 + kRound;
    const double k = shifted - kRound;
    const double r = (x - k * kLn2High) - k * kLn2Low;
    double e = 1.0;
    for (int n = 11; n > 0; --n) e = 1.0 + e * r / n;
    return e * bits<double>((bits<std::uint64_t>(shifted) << 52) + (std::uint64_t{1023} << 52));
}

// Below this the single-precision exponential is 0; rows that reach it are worked out in double precision.
constexpr float kLeastExponent = -80.0f;

// The same in single precision, for x <= 0: 2^t = 2^k 2^f with |f| <= 1/2, and a polynomial for 2^f fitted to
// the least relative error (below 1e-8). Below -80 as for -80.
LONGHAND_INLINE Floats exponential(Floats x) {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
    const Floats t = (x < kLeastExponent ? Floats{} + kLeastExponent : x) * 1.44269504f;
    const Floats shifted = t + kRound;
    const Floats f = t - (shifted - kRound);
    Floats e = f * 1.53458118e-4f + 1.33999312e-3f;
    e = e * f + 9.61848896e-3f;
    e = e * f + 5.55032878e-2f;
    e = e * f + 2.40226469e-1f;
    e = e * f + 6.93147206e-1f;
    e = e * f + 1.0f;
    return bits<Floats>(bits<Ints>(e) + (bits<Ints>(shifted) << 23));
}

LONGHAND_INLINE float largest(Floats x) {
    const HalfFloats low = {x[0], x[1], x[2], x[3]}, high = {x[4], x[5], x[6], x[7]};
    const HalfFloats most = low > high ? low : high;
    const float a = most[0] > most[1] ? most[0] : most[1], b = most[2] > most[3] ? most[2] : most[3];
    return a > b ? a : b;
}

LONGHAND_INLINE Doubles low_half(Floats x) {
    const HalfFloats half = {x[0], x[1], x[2], x[3]};
    return __builtin_convertvector(half, Doubles);
}

LONGHAND_INLINE Doubles high_half(Floats x) {
    const HalfFloats half = {x[4], x[5], x[6], x[7]};
    return __builtin_convertvector(half, Doubles);
}

// ln(x) = e ln(2) + 2 artanh((m - 1) / (m + 1)) with m in [sqrt(1/2), sqrt(2)]; -inf for 0 and denormal
// numbers. Error below 1e-10: (0.172)^13 / 13.
LONGHAND_INLINE Doubles logarithm(Doubles x) {
    const Bits raw = bits<Bits>(x);
    constexpr std::uint64_t kHalfRoot = 0x3FE6A09E667F3BCD;  // sqrt(1/2)
    const Bits offset = raw - kHalfRoot;
    // Exponents are between -1023 and 1024; 2048 is added so that the number under the shift is positive.
    const Bits biased = (offset + (std::uint64_t{2048} << 52)) >> 52;
    const Doubles exponent =
        bits<Doubles>(biased | std::uint64_t{0x4330000000000000}) - (4503599627370496.0 + 2048.0);
    const Doubles m = bits<Doubles>((offset & 0x000FFFFFFFFFFFFF) + kHalfRoot);
    const Doubles s = (m - 1.0) / (m + 1.0);
    const Doubles s2 = s * s;
    Doubles sum = s2 * (1.0 / 13.0) + 1.0 / 11.0;
    sum = sum * s2 + 1.0 / 9.0;
    sum = sum * s2 + 1.0 / 7.0;
    sum = sum * s2 + 1.0 / 5.0;
    sum = sum * s2 + 1.0 / 3.0;
    sum = sum * s2 + 1.0;
    const Doubles value = exponent * (kLn2High + kLn2Low) + 2.0 * s * sum;
    return x < std::numeric_limits<double>::min() ? Doubles{} - kInfinity : value;
}

#ifdef __SSE2__
// A bit for each of sixteen values. (GCC 12 takes the bits of its own vectors' comparisons one by one.)
LONGHAND_INLINE std::uint32_t sixteen_at_least(const float* values, float threshold) {
    const __m128 least = _mm_set1_ps(threshold);
    const auto four = [&](int i) LONGHAND_INLINED {
        return _mm_castps_si128(_mm_cmpge_ps(_mm_loadu_ps(values + 4 * i), least));
    };
    const __m128i low = _mm_packs_epi32(four(0), four(1)), high = _mm_packs_epi32(four(2), four(3));
    return static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(low, high)));
}
#endif

// The indices of values >= threshold; with kSummary also the largest values and the sums of the lanes.
template <bool kSummary>
LONGHAND_INLINE std::size_t at_least(const float* row, std::size_t count, float threshold, std::uint32_t* out,
                                     Floats& best, Floats& sum) {
    std::size_t found = 0, i = 0;
#ifdef __SSE2__
    // Sixteen values, of which so many have been seen before.
    const auto take = [&](std::size_t at, std::uint32_t seen, Floats most) LONGHAND_INLINED {
        if (!any(most >= threshold)) return;
        std::uint32_t hits = sixteen_at_least(row + at, threshold) >> seen << seen;
        for (; hits != 0; hits &= hits - 1)
            out[found++] = static_cast<std::uint32_t>(at) + static_cast<std::uint32_t>(__builtin_ctz(hits));
    };
    const auto look = [&](std::size_t at) LONGHAND_INLINED {
        // Rows come from memory while earlier ones are searched: so many numbers ahead, more than the memory
        // takes for one. Nothing is read, so that the end of the array does not matter.
        constexpr std::uintptr_t kAhead = 1024 * sizeof(float);
        if (kSummary)
            __builtin_prefetch(
                reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(row + at) + kAhead));
        const Floats low = load<Floats>(row + at), high = load<Floats>(row + at + 8);
        if (kSummary) sum += low + high;
        return larger(low, high);
    };
    const auto note = [&](Floats most) LONGHAND_INLINED {
        if (kSummary) best = larger(most, best);
    };
    for (; i + 32 <= count; i += 32) {  // most are far below
        const Floats first = look(i), second = look(i + 16), most = larger(first, second);
        note(most);
        if (!any(most >= threshold)) continue;
        take(i, 0, first);
        take(i + 16, 0, second);
    }
    if (i + 16 <= count) {
        const Floats most = look(i);
        note(most);
        take(i, 0, most);
        i += 16;
    }
    if (i < count && count >= 16) {
        const Floats most = look(count - 16);
        note(most);
        take(count - 16, static_cast<std::uint32_t>(i + 16 - count), most);
        i = count;
    }
#endif
    for (; i < count; ++i) {
        if (row[i] >= threshold) out[found++] = static_cast<std::uint32_t>(i);
        if (kSummary) {
            sum[0] += row[i];
            if (row[i] > best[0]) best[0] = row[i];
        }
    }
    return found;
}

template <bool kBest>
LONGHAND_INLINE Doubles joined(Doubles a, Doubles b) {
    if constexpr (kBest) return a > b ? a : b;
    return a + b;
}

template <bool kBest>
LONGHAND_INLINE void advance(const BeamColumns& beams, std::size_t count, const double* q, double q_blank) {
    for (std::size_t i = 0; i < count; i += kDoubles) {
        const std::int32_t* parent = beams.parent + i;
        const std::int32_t* label = beams.label + i;
        const double *b = beams.blank, *l = beams.label_end;
        const Doubles from_blank = {b[parent[0]], b[parent[1]], b[parent[2]], b[parent[3]]};
        const Doubles from_label = {l[parent[0]], l[parent[1]], l[parent[2]], l[parent[3]]};
        const Doubles q_label = {q[label[0]], q[label[1]], q[label[2]], q[label[3]]};
        const Doubles blank = load<Doubles>(b + i), label_end = load<Doubles>(l + i);
        const Doubles arrives = joined<kBest>(from_blank, load<Doubles>(beams.differs + i) * from_label);
        store(beams.new_label_end + i, joined<kBest>(label_end, arrives) * q_label);
        store(beams.new_blank + i, joined<kBest>(blank, label_end) * q_blank);
    }
}

template <bool kBest>
LONGHAND_INLINE double scores(const double* blank, const double* label_end, const double* model,
                              std::size_t count, double* total) {
    Doubles best = Doubles{} - kInfinity;
    for (std::size_t i = 0; i < count; i += kDoubles) {
        const Doubles probability = joined<kBest>(load<Doubles>(blank + i), load<Doubles>(label_end + i));
        const Doubles score = logarithm(probability) + load<Doubles>(model + i);
        store(total + i, score);
        best = score > best ? score : best;
    }
    double largest = best[0];
    for (std::size_t j = 1; j < kDoubles; ++j) largest = best[j] > largest ? best[j] : largest;
    return largest;
}

}  // namespace

LONGHAND_CLONES RowSummary summarise(const float* row, std::size_t count) {
    Floats best = Floats{} - kFloatInfinity;
    Ints odd{};
    for_each_vector(row, count, -kFloatInfinity, [&](Floats x) LONGHAND_INLINED {
        best = larger(x, best);
        odd |= x != x;
    });
    return {largest(best), any(odd)};
}

LONGHAND_CLONES RowSummary summarise(const float* row, std::size_t count, float threshold, std::uint32_t* out,
                                     std::size_t& found) {
    Floats best = Floats{} - kFloatInfinity, sum{};
    found = at_least<true>(row, count, threshold, out, best, sum);
    const float maximum = largest(best);
    // A NaN makes the sum one, as do both infinities together.
    if (any(sum != sum)) return summarise(row, count);
    return {maximum, false};
}

LONGHAND_CLONES std::size_t at_least(const float* row, std::size_t count, float threshold,
                                     std::uint32_t* out) {
    Floats best{}, sum{};
    return at_least<false>(row, count, threshold, out, best, sum);
}

LONGHAND_CLONES std::size_t find_value(const float* row, std::size_t count, float maximum) {
    std::size_t i = 0;
    for (; i + kFloats <= count; i += kFloats) {
        if (any(load<Floats>(row + i) == maximum)) break;
    }
    while (i < count && row[i] != maximum) ++i;
    return i;
}

LONGHAND_CLONES void exponentials(const float* row, std::size_t count, float maximum, double scale,
                                  double* out) {
    Ints far{};
    const auto factor = static_cast<float>(scale);
    const auto take = [&](Floats value, std::size_t at) LONGHAND_INLINED {
        const Floats x = (value - maximum) * factor;
        far |= (x < kLeastExponent) & (x > -kFloatInfinity);
        const Floats e = x < kLeastExponent ? Floats{} : exponential(x);
        store(out + at, low_half(e));
        store(out + at + kDoubles, high_half(e));
    };
    // Not for_each_vector(): what stands before the last values has been written.
    std::size_t i = 0;
    for (; i + kFloats <= count; i += kFloats) take(load<Floats>(row + i), i);
    if (i < count) take(load_some(row + i, count - i, -kFloatInfinity), i);
    if (!any(far)) return;
    for (i = 0; i < count; ++i) out[i] = exponential((static_cast<double>(row[i]) - maximum) * scale);
}

LONGHAND_CLONES double exponential_sum(const float* row, std::size_t count, float maximum, double scale) {
    Floats sum{};
    const auto factor = static_cast<float>(scale);
    for_each_vector(row, count, -kFloatInfinity,
                    [&](Floats x) LONGHAND_INLINED { sum += exponential((x - maximum) * factor); });
    const Doubles halves = low_half(sum) + high_half(sum);
    return halves[0] + halves[1] + (halves[2] + halves[3]);
}

LONGHAND_CLONES void advance_sum(const BeamColumns& beams, std::size_t count, const double* probabilities,
                                 double blank_probability) {
    advance<false>(beams, count, probabilities, blank_probability);
}

LONGHAND_CLONES void advance_max(const BeamColumns& beams, std::size_t count, const double* probabilities,
                                 double blank_probability) {
    advance<true>(beams, count, probabilities, blank_probability);
}

LONGHAND_CLONES double scores_sum(const double* blank, const double* label_end, const double* model,
                                  std::size_t count, double* total) {
    return scores<false>(blank, label_end, model, count, total);
}

LONGHAND_CLONES double scores_max(const double* blank, const double* label_end, const double* model,
                                  std::size_t count, double* total) {
    return scores<true>(blank, label_end, model, count, total);
}

LONGHAND_CLONES std::size_t sums_above(const double* a, const double* b, std::size_t count, double threshold,
                                       std::uint32_t* out) {
    std::size_t found = 0;
    for (std::size_t i = 0; i < count; i += kDoubles) {
        const Longs above = load<Doubles>(a + i) + load<Doubles>(b + i) > threshold;
        if (!any(above)) continue;
        for (std::size_t j = 0; j < kDoubles; ++j) {
            out[found] = static_cast<std::uint32_t>(i + j);
            found += above[j] != 0 ? 1 : 0;
        }
    }
    return found;
}

LONGHAND_CLONES std::size_t find_value(const std::uint64_t* values, std::size_t count, std::uint64_t wanted) {
    for (std::size_t i = 0; i < count; i += kDoubles) {
        if (!any(load<Bits>(values + i) == wanted)) continue;
        while (values[i] != wanted) ++i;
        return i;
    }
    return count;
}

}  // namespace longhand
