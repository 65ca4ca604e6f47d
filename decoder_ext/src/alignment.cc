#include "alignment.h"

#include <algorithm>
#include <limits>

namespace longhand {

namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();
// A character may last this many frames into its successor's time.
constexpr int kSlack = 32;

// State 2k is the blank before character k, state 2k + 1 the character itself, state 2L the blank at the end.
class Aligner {
  public:
    Aligner(const LogProbs& line, std::uint32_t blank, const std::vector<std::uint32_t>& labels)
        : line_(line), blank_(blank), labels_(labels), count_(labels.size()) {}

    bool run(const std::vector<int>& first_frames, int slack) {
        scores_.assign(2 * count_ + 1, kImpossible);
        moves_.clear();
        rows_.clear();
        std::size_t low = 0, high = 0;  // characters that are over, characters that may have begun
        for (std::size_t frame = 0; frame < line_.frames; ++frame) {
            const int now = static_cast<int>(frame);
            while (high < count_ && first_frames[high] <= now) ++high;
            while (low + 1 < high && first_frames[low + 1] + slack < now) scores_[2 * low++] = kImpossible;
            if (low > 0) scores_[2 * low - 1] = scores_[2 * low - 2] = kImpossible;
            step(frame, 2 * low, 2 * high);
        }
        const std::size_t end = 2 * count_;
        state_ = count_ > 0 && scores_[end - 1] > scores_[end] ? end - 1 : end;
        return scores_[state_] > kImpossible;
    }

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
};

}  // namespace

std::vector<FrameRange> align(const LogProbs& line, std::uint32_t blank,
                              const std::vector<std::uint32_t>& labels,
                              const std::vector<int>& first_frames) {
    Aligner aligner(line, blank, labels);
    const bool found = aligner.run(first_frames, kSlack) ||
                       aligner.run(std::vector<int>(labels.size(), 0), static_cast<int>(line.frames));
    if (found) return aligner.trace();
    std::vector<FrameRange> ranges;
    for (const int frame : first_frames) ranges.push_back({frame, frame});
    return ranges;
}

}  // namespace longhand
