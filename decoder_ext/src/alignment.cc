#include "alignment.h"

#include <algorithm>
#include <limits>

#include "frame_math.h"

namespace longhand {

namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();
// Beginnings of paths this much less likely than the best one (natural log) are given up, so that time and
// memory grow with the frames and not with frames times characters.
constexpr float kFarBehind = 60.0f;
// Bytes. Only where tens of thousands of frames are next to undecided are there as many paths to follow.
constexpr std::size_t kLargestTable = std::size_t{1} << 27;

// State 2k is the blank before character k, state 2k + 1 the character itself, state 2L the blank at the end.
class Aligner {
  public:
    Aligner(const LogProbs& line, std::uint32_t blank, const std::vector<std::uint32_t>& labels)
        : line_(line), blank_(blank), labels_(labels), count_(labels.size()) {}

    bool run(float far_behind) {
        const std::size_t end = 2 * count_;
        scores_.assign(end + 1, kImpossible);
        moves_.clear();
        rows_.clear();
        most_ = 0.0f;
        std::size_t low = 0, high = 0;  // the states that paths worth following have reached
        for (std::size_t frame = 0; frame < line_.frames; ++frame) {
            high = std::min(high + (frame == 0 ? 1 : 2), end);
            if (moves_.size() + (high - low) >= kLargestTable) return false;
            step(frame, low, high);
            most_ += summarise(line_.values + frame * line_.labels, line_.labels).maximum;
            const auto first = scores_.begin() + static_cast<std::ptrdiff_t>(low);
            const auto last = scores_.begin() + static_cast<std::ptrdiff_t>(high) + 1;
            const float least = *std::max_element(first, last) - far_behind;
            while (scores_[low] < least) scores_[low++] = kImpossible;
            while (scores_[high] < least) scores_[high--] = kImpossible;
        }
        state_ = count_ > 0 && scores_[end - 1] > scores_[end] ? end - 1 : end;
        return scores_[state_] > kImpossible;
    }

    // How far the path that was found is behind the best one that spells anything.
    float behind() const { return most_ - scores_[state_]; }

    std::vector<FrameRange> trace() {
        std::vector<FrameRange> ranges(count_, FrameRange{-1, -1});
        for (std::size_t frame = line_.frames; frame-- > 0;) {
            if (state_ % 2 == 1) {
                FrameRange& range = ranges[state_ / 2];
                range.first = static_cast<int>(frame);
                if (range.last < 0) range.last = range.first;
            }
            state_ -= moves_[rows_[frame].begin + (state_ - rows_[frame].low)];
        }
        return ranges;
    }

  private:
    struct Row {
        std::size_t begin, low;
    };

    void step(std::size_t frame, std::size_t low, std::size_t high) {
        const float* row = line_.values + frame * line_.labels;
        rows_.push_back({moves_.size(), low});
        moves_.resize(moves_.size() + (high - low + 1));
        std::uint8_t* moves = moves_.data() + rows_.back().begin;
        // Downwards, so that the scores below a state are still those before this frame.
        for (std::size_t state = high + 1; state-- > low;) {
            const bool character = state % 2 == 1;
            float best = frame == 0 && state < 2 ? 0.0f : frame == 0 ? kImpossible : scores_[state];
            std::uint8_t move = 0;
            if (frame > 0 && state > low && scores_[state - 1] > best) {
                best = scores_[state - 1];
                move = 1;
            }
            const bool skips = character && state >= low + 2 && labels_[state / 2] != labels_[state / 2 - 1];
            if (frame > 0 && skips && scores_[state - 2] > best) {
                best = scores_[state - 2];
                move = 2;
            }
            scores_[state] = best + row[character ? labels_[state / 2] : blank_];
            moves[state - low] = move;
        }
    }

    const LogProbs& line_;
    const std::uint32_t blank_;
    const std::vector<std::uint32_t>& labels_;
    const std::size_t count_;
    std::vector<float> scores_;
    std::vector<std::uint8_t> moves_;
    std::vector<Row> rows_;
    std::size_t state_ = 0;
    float most_ = 0.0f;
};

}  // namespace

std::vector<FrameRange> align(const LogProbs& line, std::uint32_t blank,
                              const std::vector<std::uint32_t>& labels) {
    Aligner aligner(line, blank, labels);
    bool found = aligner.run(kFarBehind);
    if (!found) {
        found = aligner.run(std::numeric_limits<float>::infinity());
    } else if (aligner.behind() > kFarBehind) {
        // A better one may have been given up. On its way it was never as far behind as this one is in the
        // end.
        constexpr float kRounding = 1.0f;
        found = aligner.run(aligner.behind() + kRounding) || aligner.run(kFarBehind);
    }
    if (found) return aligner.trace();
    std::vector<FrameRange> ranges;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const int frame = static_cast<int>(i * line.frames / labels.size());
        ranges.push_back({frame, frame});
    }
    return ranges;
}

}  // namespace longhand
