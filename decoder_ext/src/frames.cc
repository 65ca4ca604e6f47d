#include "frames.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "frame_math.h"

namespace longhand {

namespace {

// Half-precision log-softmax leaves sums of up to about 1.01.
constexpr float kLargestLogProbability = 0.02f;

[[noreturn]] void refuse(std::size_t frame, const std::string& what) {
    throw std::invalid_argument("frame " + std::to_string(frame) + " " + what);
}

}  // namespace

void check_shape(const LogProbs& line, std::size_t labels) {
    if (line.labels != labels) {
        throw std::invalid_argument("the frames have " + std::to_string(line.labels) +
                                    " columns, but there are " + std::to_string(labels) + " labels");
    }
}

FrameReader::FrameReader(const PreparedOptions& options)
    : options_(options), labels_(options.model->labels.size()), blank_(options.model->labels.blank()) {
    chosen_.resize(labels_);
    // exponentials() writes whole vectors, and a 0 follows the labels.
    padded_ = (labels_ / 8 + 1) * 8;
    if (!options.allowed.empty()) masked_.resize(labels_);
    shifted_.resize(options.prior_shift.size());
}

float FrameReader::checked_maximum(const float* row, std::size_t index) const {
    const RowSummary summary = summarise(row, labels_);
    if (summary.has_nan) refuse(index, "has a NaN");
    if (summary.maximum == std::numeric_limits<float>::infinity()) refuse(index, "has an infinite value");
    if (summary.maximum == -std::numeric_limits<float>::infinity()) refuse(index, "has no label above -inf");
    if (options_.options.input == InputKind::kLogProbs && summary.maximum > kLargestLogProbability) {
        refuse(index,
               "has the value " + std::to_string(summary.maximum) +
                   ", which is no log-probability: those are at most 0 (logits must be declared by the "
                   "option input)");
    }
    return summary.maximum;
}

// Forbidden labels keep their share of the probability, but no path goes through them.
const float* FrameReader::masked(const float* row, std::size_t index) {
    if (options_.allowed.empty()) return row;
    bool some = false;
    for (std::size_t label = 0; label < labels_; ++label) {
        masked_[label] = options_.allowed[label] ? row[label] : -std::numeric_limits<float>::infinity();
        some |= masked_[label] > -std::numeric_limits<float>::infinity();
    }
    if (!some) refuse(index, "has -inf for the blank and every allowed character");
    return masked_.data();
}

bool FrameReader::needs_normaliser() const {
    return options_.options.input == InputKind::kLogits || options_.options.temperature != 1.0;
}

// The logarithm of what all labels of the row sum up to.
double FrameReader::normaliser(const float* row, float maximum) const {
    const double scale = 1.0 / options_.options.temperature;
    return maximum * scale + std::log(exponential_sum(row, labels_, maximum, scale));
}

// The same; leaves the probabilities relative to `maximum` in `relative`.
double FrameReader::normaliser(const float* row, float maximum, std::vector<double>& relative) const {
    const double scale = 1.0 / options_.options.temperature;
    return maximum * scale + std::log(exponentials(row, labels_, maximum, scale, relative.data()));
}

const float* FrameReader::without_priors(const float* row) {
    for (std::size_t label = 0; label < labels_; ++label)
        shifted_[label] = row[label] - options_.prior_shift[label];
    return shifted_.data();
}

void FrameReader::read(const float* row, std::size_t index, Frame& frame) {
    float maximum = checked_maximum(row, index);
    const bool shifts = !options_.prior_shift.empty(), normalises = shifts || needs_normaliser();
    if (shifts) {
        row = without_priors(row);
        maximum = summarise(row, labels_).maximum;
    }
    frame.probabilities.resize(padded_);
    const bool hard = options_.options.hard_token_threshold;
    frame.log_normaliser = !normalises ? 0.0
                           : hard      ? normaliser(row, maximum)
                                       : normaliser(row, maximum, frame.probabilities);
    const float* usable = masked(row, index);
    const float best = usable == row ? maximum : summarise(usable, labels_).maximum;
    const double scale = 1.0 / options_.options.temperature;
    if (!hard && (usable != row || !normalises))
        exponentials(usable, labels_, best, scale, frame.probabilities.data());
    frame.probabilities[labels_] = 0.0;
    frame.log_scale = best * scale - frame.log_normaliser;
    const std::size_t chosen = choose_tokens(usable, frame);
    if (hard) keep_chosen(usable, best, chosen, frame);
}

// The other labels are impossible in this frame.
void FrameReader::keep_chosen(const float* row, float maximum, std::size_t count, Frame& frame) const {
    std::fill(frame.probabilities.begin(), frame.probabilities.end(), 0.0);
    for (std::size_t i = 0; i < count; ++i) {
        const double below = (static_cast<double>(row[chosen_[i]]) - maximum) / options_.options.temperature;
        frame.probabilities[chosen_[i]] = std::exp(below);
    }
}

FrameReader::Best FrameReader::read_best(const float* row, std::size_t index) {
    float maximum = checked_maximum(row, index);
    const double log_normaliser = needs_normaliser() ? normaliser(row, maximum) : 0.0;
    const float* usable = masked(row, index);
    if (usable != row) maximum = summarise(usable, labels_).maximum;
    const auto label = static_cast<std::uint32_t>(find_value(usable, labels_, maximum));
    return {label, maximum / options_.options.temperature - log_normaliser};
}

std::size_t FrameReader::choose_tokens(const float* row, Frame& frame) {
    const BeamSearchOptions& values = options_.options;
    frame.tokens.clear();
    // In the numbers of the input; a frame's best label always counts.
    const double least = (values.token_threshold + frame.log_normaliser) * values.temperature;
    const double best = (frame.log_scale + frame.log_normaliser) * values.temperature;
    const auto threshold = static_cast<float>(std::min(least, best));
    const std::size_t found = at_least(row, labels_, threshold, chosen_.data());
    for (std::size_t i = 0; i < found; ++i) {
        const std::uint32_t label = chosen_[i];
        if (label == blank_ || row[label] == -std::numeric_limits<float>::infinity()) continue;
        const double log_probability =
            row[label] / values.temperature - frame.log_normaliser - frame.log_scale;
        frame.tokens.push_back({label, log_probability});
    }
    const auto before = [](const Token& a, const Token& b) {
        return a.log_probability != b.log_probability ? a.log_probability > b.log_probability
                                                      : a.label < b.label;
    };
    const auto cap = static_cast<std::size_t>(values.max_tokens_per_frame);
    if (cap > 0 && frame.tokens.size() > cap) {
        std::nth_element(frame.tokens.begin(), frame.tokens.begin() + values.max_tokens_per_frame,
                         frame.tokens.end(), before);
        frame.tokens.resize(cap);
    }
    std::sort(frame.tokens.begin(), frame.tokens.end(), before);
    return found;
}

}  // namespace longhand
