// From the caller's numbers to the probabilities of one frame.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "frame_math.h"
#include "model.h"

namespace longhand {

// A label that may start new prefixes in this frame.
struct Token {
    std::uint32_t label;
    double log_probability;  // relative to the frame's best label
};

struct Frame {
    static constexpr std::uint32_t kSeveral = 0xFFFFFFFFu;

    // Of the blank and of labels that have been tokens so far in the line, relative to the frame's best one;
    // 0 elsewhere, for no prefix in the beam can end with another label, and behind the last label (the empty
    // prefix has it as its last one).
    std::vector<double> probabilities;
    // The labels, the blank too, that reach the threshold: ascending, the first `reached_count`.
    std::vector<std::uint32_t> reached;
    std::size_t reached_count = 0;
    std::vector<Token> tokens;      // most probable first, without the blank
    std::uint32_t only = kSeveral;  // the one label that is possible
    double log_scale = 0.0;       // log-probability of the best label: what the numbers above are relative to
    double log_normaliser = 0.0;  // log-probability of label v = input[v] / temperature - this,
                                  // the input being less its prior shift
};

// Throws std::invalid_argument unless the view has `labels` columns.
void check_shape(const LogProbs& line, std::size_t labels);

// What frames are read for: scores as well as text, or text alone. Without scores frames need not be true to
// scale: log_normaliser and log_scale may both be too small by as much, which the choice between prefixes
// does not feel.
enum class Purpose { kScores, kText };

class FrameReader {
  public:
    FrameReader(const PreparedOptions& options, Purpose purpose);

    // Fills `frame` from one row. `index` is the row's number in the line, for messages.
    // Throws std::invalid_argument if the row has a NaN, +inf, only -inf, or logarithms above 0.
    void read(const float* row, std::size_t index, Frame& frame);

    struct Best {
        std::uint32_t label;
        double log_probability;
    };
    // The best label of a row; refuses what read() refuses.
    Best read_best(const float* row, std::size_t index);

  private:
    float checked_maximum(const RowSummary& summary, std::size_t index) const;
    double normaliser(const float* row, float maximum) const;
    const float* shifted(const float* row);
    const float* masked(const float* row, std::size_t index);
    // `usable` is the row or what is allowed of it, `best` its maximum.
    void read_hard(const float* row, float maximum, const float* usable, float best, Frame& frame);
    void find_reached(const float* usable, float best, Frame& frame);
    void find_shares(const float* usable, float best, const Frame& frame);
    bool drop_below_threshold(Frame& frame);
    void choose_tokens(const float* usable, float best, Frame& frame);
    void set_only(std::uint32_t label, float best, Frame& frame) const;
    void fill_seen(const float* usable, float best, Frame& frame);

    const PreparedOptions& options_;
    std::size_t labels_;
    std::uint32_t blank_;
    double scale_;        // 1 / temperature
    double least_share_;  // the token threshold as a probability
    Purpose purpose_;
    bool unnormalised_input_;  // the input's labels do not sum up to 1
    bool normalises_;          // ... nor would they without their priors
    bool changes_;             // rows lose their priors, or labels that are not allowed
    // What the frame's labels are looked through for while its maximum is found.
    float guess_ = std::numeric_limits<float>::infinity();
    float complete_from_ = 0.0f;  // every label from here on has been found
    std::vector<float> masked_, shifted_;
    std::vector<double> shares_;  // of Frame::reached; where the threshold is a hard one
    // Those below are for where it is not.
    std::vector<std::uint32_t> seen_;  // the blank, and the tokens so far
    std::vector<bool> is_seen_;        // per label
    std::vector<float> seen_values_;
    std::vector<double> seen_probabilities_;
};

}  // namespace longhand
