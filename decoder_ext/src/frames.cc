#include "frames.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "frame_math.h"

namespace longhand {

namespace {

// Half-precision log-softmax leaves sums of up to about 1.01.
constexpr float kLargestLogProbability = 0.02f;
// By how much a frame's threshold, in the numbers of the input, may lie below the last one's.
constexpr float kMargin = 1.0f;

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

FrameReader::FrameReader(const PreparedOptions& options, Purpose purpose)
    : options_(options),
      labels_(options.model->labels.size()),
      blank_(options.model->labels.blank()),
      scale_(1.0 / options.options.temperature),
      least_share_(std::exp(options.options.token_threshold)),
      purpose_(purpose),
      unnormalised_input_(options.options.input == InputKind::kLogits || options.options.temperature != 1.0),
      normalises_(unnormalised_input_ || !options.shift.empty()),
      changes_(!options.shift.empty() || !options.allowed.empty()) {
    if (!options.allowed.empty()) masked_.resize(labels_);
    shifted_.resize(options.shift.size());
    if (options.options.hard_token_threshold) {
        shares_.resize(labels_);
        return;
    }
    seen_ = {blank_};
    is_seen_.resize(labels_);
    seen_values_.resize(labels_);
    seen_probabilities_.resize((labels_ + 7) / 8 * 8);  // exponentials() writes whole vectors
}

float FrameReader::checked_maximum(const RowSummary& summary, std::size_t index) const {
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

// The logarithm of what all labels of the row sum up to.
double FrameReader::normaliser(const float* row, float maximum) const {
    return maximum * scale_ + std::log(exponential_sum(row, labels_, maximum, scale_));
}

const float* FrameReader::shifted(const float* row) {
    for (std::size_t label = 0; label < labels_; ++label)
        shifted_[label] = row[label] - options_.shift[label];
    return shifted_.data();
}

// The labels that reach the threshold. It changes little from frame to frame: mostly they have been found
// while the maximum was.
inline void FrameReader::find_reached(const float* usable, float best, Frame& frame) {
    // In the numbers of the input; a frame's best label always counts.
    const BeamSearchOptions& values = options_.options;
    const double least = (values.token_threshold + frame.log_normaliser) * values.temperature;
    const float threshold = std::min(static_cast<float>(least), best);
    if (complete_from_ <= threshold) {
        std::size_t kept = 0;
        for (std::size_t i = 0; i < frame.reached_count; ++i) {
            const std::uint32_t label = frame.reached[i];
            frame.reached[kept] = label;
            kept += usable[label] >= threshold ? 1 : 0;
        }
        frame.reached_count = kept;
    } else {
        frame.reached_count = at_least(usable, labels_, threshold, frame.reached.data());
    }
    complete_from_ = threshold;
    guess_ = threshold - kMargin;
}

void FrameReader::read(const float* row, std::size_t index, Frame& frame) {
    if (frame.reached.size() != labels_) {
        frame.probabilities.resize(labels_ + 1);
        frame.reached.resize(labels_);
    }
    if (options_.options.hard_token_threshold)
        for (std::size_t i = 0; i < frame.reached_count; ++i) frame.probabilities[frame.reached[i]] = 0.0;
    float maximum =
        checked_maximum(summarise(row, labels_, guess_, frame.reached.data(), frame.reached_count), index);
    complete_from_ = guess_;
    const float* usable = row;
    float best = maximum;
    if (changes_) {
        if (!options_.shift.empty()) {
            row = shifted(row);
            maximum = summarise(row, labels_).maximum;
        }
        usable = masked(row, index);
        best = summarise(usable, labels_).maximum;
        complete_from_ = std::numeric_limits<float>::infinity();
    }
    if (options_.options.hard_token_threshold) {
        read_hard(row, maximum, usable, best, frame);
        return;
    }
    frame.log_normaliser = normalises_ ? normaliser(row, maximum) : 0.0;
    find_reached(usable, best, frame);
    frame.only = Frame::kSeveral;
    choose_tokens(usable, best, frame);
    fill_seen(usable, best, frame);
}

void FrameReader::fill_seen(const float* usable, float best, Frame& frame) {
    for (const Token& token : frame.tokens) {
        if (is_seen_[token.label]) continue;
        is_seen_[token.label] = true;
        seen_.push_back(token.label);
    }
    for (std::size_t i = 0; i < seen_.size(); ++i) seen_values_[i] = usable[seen_[i]];
    exponentials(seen_values_.data(), seen_.size(), best, scale_, seen_probabilities_.data());
    for (std::size_t i = 0; i < seen_.size(); ++i) frame.probabilities[seen_[i]] = seen_probabilities_[i];
}

// Labels below the threshold are impossible in this frame.
void FrameReader::read_hard(const float* row, float maximum, const float* usable, float best, Frame& frame) {
    const bool exact = normalises_ && purpose_ != Purpose::kText;
    frame.log_normaliser = exact ? normaliser(row, maximum) : normalises_ ? maximum * scale_ : 0.0;
    find_reached(usable, best, frame);
    find_shares(usable, best, frame);
    // It cannot be less than the maximum, and a single label counts whatever it is.
    if (normalises_ && !exact && frame.reached_count > 1 && (usable != row || !drop_below_threshold(frame))) {
        frame.log_normaliser = normaliser(row, maximum);
        find_reached(usable, best, frame);
        find_shares(usable, best, frame);
    }
    if (frame.reached_count == 1) {
        set_only(frame.reached[0], best, frame);
        return;
    }
    frame.only = Frame::kSeveral;
    choose_tokens(usable, best, frame);
    for (std::size_t i = 0; i < frame.reached_count; ++i) frame.probabilities[frame.reached[i]] = shares_[i];
}

// The probabilities of the labels that reach the threshold, relative to the best one's.
void FrameReader::find_shares(const float* usable, float best, const Frame& frame) {
    for (std::size_t i = 0; i < frame.reached_count; ++i) {
        const double below = (static_cast<double>(usable[frame.reached[i]]) - best) * scale_;
        shares_[i] = below == 0.0 ? 1.0 : std::exp(below);
    }
}

// The threshold is a share of what all labels sum up to, and those in `frame` have only been compared with
// the best one. Mostly it does not matter what the others, which are all below, add to the sum: then those
// that do not reach it go. Where it does matter this is false, and nothing changes.
bool FrameReader::drop_below_threshold(Frame& frame) {
    constexpr double kRounding = 1e-5;  // normaliser() adds up in single precision
    constexpr double kBelowOne = 1.0 - std::numeric_limits<double>::epsilon();
    double sum = 0.0;
    for (std::size_t i = 0; i < frame.reached_count; ++i) sum += shares_[i];
    const double others = static_cast<double>(labels_ - frame.reached_count) * least_share_;
    // A frame's best label always counts.
    const double below = std::min(sum * least_share_ * (1.0 - kRounding), 1.0);
    const double above = std::min((sum + others) * least_share_ * (1.0 + kRounding), kBelowOne);
    for (std::size_t i = 0; i < frame.reached_count; ++i) {
        if (shares_[i] >= below && shares_[i] <= above) return false;
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < frame.reached_count; ++i) {
        if (shares_[i] < below) continue;
        frame.reached[kept] = frame.reached[i];
        shares_[kept++] = shares_[i];
    }
    frame.reached_count = kept;
    return true;
}

// The most frequent case by far: one label reaches the threshold, which is the best one.
void FrameReader::set_only(std::uint32_t label, float best, Frame& frame) const {
    frame.only = label;
    frame.probabilities[label] = 1.0;
    frame.log_scale = best * scale_ - frame.log_normaliser;
    frame.tokens.clear();
    if (label != blank_) frame.tokens.push_back({label, 0.0});
}

FrameReader::Best FrameReader::read_best(const float* row, std::size_t index) {
    float maximum = checked_maximum(summarise(row, labels_), index);
    const double log_normaliser = unnormalised_input_ ? normaliser(row, maximum) : 0.0;
    const float* usable = masked(row, index);
    if (usable != row) maximum = summarise(usable, labels_).maximum;
    const auto label = static_cast<std::uint32_t>(find_value(usable, labels_, maximum));
    return {label, maximum * scale_ - log_normaliser};
}

void FrameReader::choose_tokens(const float* usable, float best, Frame& frame) {
    const BeamSearchOptions& values = options_.options;
    frame.tokens.clear();
    frame.log_scale = best * scale_ - frame.log_normaliser;
    for (std::size_t i = 0; i < frame.reached_count; ++i) {
        const std::uint32_t label = frame.reached[i];
        if (label == blank_ || usable[label] == -std::numeric_limits<float>::infinity()) continue;
        Token& fresh = frame.tokens.emplace_back();
        fresh.label = label;
        fresh.log_probability = usable[label] * scale_ - frame.log_normaliser - frame.log_scale;
    }
    if (frame.tokens.size() < 2) return;
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
}

}  // namespace longhand
