// The prefixes that the search holds, as columns. A prefix keeps its slot from the frame in which it enters
// to the one in which it leaves.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "frame_math.h"
#include "prefix_tree.h"

namespace longhand {

class Beam {
  public:
    // Slot 0 holds no prefix: whoever has no parent in the beam has it as its parent. The others are 1 ..
    // size() - 1.
    static constexpr std::uint32_t kFirst = 1;

    void reset(std::uint32_t labels);
    // Gives back what an unusually wide beam or alphabet took.
    void trim();

    std::uint32_t size() const { return size_; }
    std::uint32_t prefixes() const { return size_ - kFirst; }
    BeamColumns step_columns() {
        return {label.data(),     parent.data(),    differs.data(),      blank.data(),
                label_end.data(), new_blank.data(), new_label_end.data()};
    }

    // Puts a node into the beam.
    std::uint32_t enter(PrefixTree& tree, std::uint32_t node);
    // Takes one out. Its node stays in the tree, and its slot is free, until settle().
    void leave(PrefixTree& tree, std::uint32_t slot);
    // Makes no prefix in the beam the parent of another: none will be there, nor a longer one by one label,
    // when the change ends.
    void detach_parents();
    // Puts a node into the place of its parent, behind detach_parents(). The parent stays in the tree.
    void replace(PrefixTree& tree, std::uint32_t slot, std::uint32_t node);
    // Ends a change of the beam: no slot below size() is free, and the tree forgets who left.
    void settle(PrefixTree& tree);

    // Gives the prefix in a slot its history; 0 is none.
    void remember(std::uint32_t slot, std::uint64_t history) {
        forget(slot);
        history_[slot] = history;
        if (history != 0) ++tally_[bucket(history)];
    }
    // The slot of the prefix with this history; 0 if there is none.
    std::uint32_t find(std::uint64_t wanted) const {
        if (tally_[bucket(wanted)] == 0) return 0;  // mostly
        const std::size_t found = find_value(history_.data(), size_, wanted);
        return found < size_ ? static_cast<std::uint32_t>(found) : 0;
    }

    // What the models add to a prefix's score when it is extended by a label, as far as it is known.
    static constexpr float kInBeam =
        std::numeric_limits<float>::infinity();  // the longer prefix is in the beam itself
    static bool unknown(float gain) { return gain != gain; }
    // The column of a label; columns are given out as labels come up.
    std::uint32_t column(std::uint32_t of) {
        const std::uint32_t known = column_of_[of];
        return known != kNoColumn ? known : new_column(of);
    }
    float& gain(std::uint32_t slot, std::uint32_t column) { return gains_[slot * stride_ + column]; }

    std::vector<std::int32_t> label, parent;
    std::vector<double> differs, blank, label_end, model;
    std::vector<double> headroom;         // no label can raise the models' part of the score by more
    std::vector<double> letter_headroom;  // ... and no letter by more than this
    std::vector<double> score;            // acoustic + models
    std::vector<double> new_blank, new_label_end, new_score;  // after the frame
    std::vector<std::uint32_t> node;

  private:
    static constexpr std::uint32_t kNoColumn = 0xFFFFFFFFu;
    static constexpr std::size_t kGainsKept = std::size_t{1} << 20;

    static constexpr int kBucketBits = 10;

    // By the top bits: the lowest is always set.
    static std::size_t bucket(std::uint64_t history) { return history >> (64 - kBucketBits); }
    void forget(std::uint32_t slot) {
        if (history_[slot] != 0) --tally_[bucket(history_[slot])];
        history_[slot] = 0;
    }
    std::uint32_t new_column(std::uint32_t label);
    void grow(std::uint32_t slots);
    void widen();
    void clear(std::uint32_t slot);
    void move(PrefixTree& tree, std::uint32_t from, std::uint32_t to);
    void tell_children(PrefixTree& tree, std::uint32_t of, std::uint32_t slot);

    std::uint32_t labels_ = 0;
    std::uint32_t size_ = kFirst;
    std::uint32_t most_ = kFirst;  // the largest size of this line
    std::uint32_t capacity_ = 0;
    std::vector<std::uint32_t> free_, leaving_;
    std::vector<float> gains_;  // slots by columns
    std::uint32_t stride_ = 0, columns_ = 0;
    std::vector<std::uint32_t> column_of_;                              // per label
    std::vector<std::uint64_t> history_;                                // per slot; 0 where there is none
    std::array<std::uint32_t, std::size_t{1} << kBucketBits> tally_{};  // of the histories, per bucket
};

}  // namespace longhand
