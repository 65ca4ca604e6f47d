#include "beam.h"

#include <algorithm>

namespace longhand {

namespace {
constexpr std::uint32_t kFirstStride = 32;
constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();
}  // namespace

void Beam::reset(std::uint32_t labels) {
    labels_ = labels;
    free_.clear();
    leaving_.clear();
    if (stride_ == 0) stride_ = kFirstStride;
    columns_ = 0;
    column_of_.assign(labels, kNoColumn);
    if (capacity_ == 0) grow(kFirst + 1);
    // Slot 0 and those that fill the last vector take part in the arithmetic too.
    const std::uint32_t used = std::min(most_ + static_cast<std::uint32_t>(kBeamLanes), capacity_);
    for (std::uint32_t slot = 0; slot < used; ++slot) clear(slot);
    most_ = size_ = kFirst;
}

void Beam::trim() {
    if (gains_.size() <= kGainsKept) return;
    *this = Beam{};
}

void Beam::grow(std::uint32_t slots) {
    const std::uint32_t before = capacity_;
    constexpr auto kLanes = static_cast<std::uint32_t>(kBeamLanes);
    capacity_ = (std::max(slots, 2 * before) + kLanes - 1) / kLanes * kLanes;
    label.resize(capacity_);
    parent.resize(capacity_);
    for (auto* column : {&differs, &blank, &label_end, &model, &headroom, &letter_headroom, &score,
                         &new_blank, &new_label_end, &new_score})
        column->resize(capacity_);
    node.resize(capacity_);
    history_.resize(capacity_);
    gains_.resize(static_cast<std::size_t>(capacity_) * stride_, kUnknown);
    for (std::uint32_t slot = before; slot < capacity_; ++slot) clear(slot);
}

// A slot that takes part in no sum.
void Beam::clear(std::uint32_t slot) {
    label[slot] = static_cast<std::int32_t>(labels_);
    parent[slot] = 0;
    for (auto* column :
         {&differs, &blank, &label_end, &model, &headroom, &letter_headroom, &new_blank, &new_label_end})
        (*column)[slot] = 0.0;
    score[slot] = new_score[slot] = -std::numeric_limits<double>::infinity();
    node[slot] = PrefixNode::kNone;
    forget(slot);
}

std::uint32_t Beam::new_column(std::uint32_t of) {
    if (columns_ == stride_) widen();
    const std::uint32_t fresh = columns_++;
    for (std::uint32_t slot = kFirst; slot < size_; ++slot) gain(slot, fresh) = kUnknown;
    return column_of_[of] = fresh;
}

void Beam::widen() {
    std::vector<float> wider(static_cast<std::size_t>(capacity_) * stride_ * 2, kUnknown);
    for (std::uint32_t slot = kFirst; slot < size_; ++slot) {
        const auto row = gains_.begin() + static_cast<std::ptrdiff_t>(slot) * stride_;
        std::copy(row, row + stride_, wider.begin() + static_cast<std::ptrdiff_t>(slot) * stride_ * 2);
    }
    gains_.swap(wider);
    stride_ *= 2;
}

// The prefixes in the beam that are one label longer than node `of` learn of its slot, 0 if it leaves.
void Beam::tell_children(PrefixTree& tree, std::uint32_t of, std::uint32_t slot) {
    for (std::uint32_t c = tree[of].first_child; c != PrefixNode::kNone; c = tree[c].next_sibling) {
        if (tree[c].slot != 0) parent[tree[c].slot] = static_cast<std::int32_t>(slot);
    }
}

std::uint32_t Beam::enter(PrefixTree& tree, std::uint32_t entering) {
    std::uint32_t slot = size_;
    if (!free_.empty()) {
        slot = free_.back();
        free_.pop_back();
    } else {
        if (size_ == capacity_) grow(size_ + 1);
        most_ = std::max(most_, ++size_);
    }
    PrefixNode& own = tree[entering];
    own.slot = slot;
    node[slot] = entering;
    label[slot] = static_cast<std::int32_t>(own.label);
    model[slot] = own.state.score;
    std::fill_n(gains_.begin() + static_cast<std::ptrdiff_t>(slot) * stride_, columns_, kUnknown);
    if (entering != PrefixTree::kRoot) {
        const PrefixNode& above = tree[own.parent];
        parent[slot] = static_cast<std::int32_t>(above.slot);
        differs[slot] = above.label == own.label ? 0.0 : 1.0;
        if (above.slot != 0) gain(above.slot, column(own.label)) = kInBeam;
    }
    tell_children(tree, entering, slot);
    for (std::uint32_t c = own.first_child; c != PrefixNode::kNone; c = tree[c].next_sibling) {
        if (tree[c].slot != 0) gain(slot, column(tree[c].label)) = kInBeam;
    }
    return slot;
}

void Beam::leave(PrefixTree& tree, std::uint32_t slot) {
    PrefixNode& own = tree[node[slot]];
    const auto above = static_cast<std::uint32_t>(parent[slot]);
    // It may come back: what the models think of it is known.
    if (above != 0) gain(above, column(own.label)) = static_cast<float>(model[slot] - model[above]);
    own.slot = 0;
    tell_children(tree, node[slot], 0);
    leaving_.push_back(node[slot]);
    free_.push_back(slot);
    clear(slot);
}

void Beam::detach_parents() {
    std::fill(parent.begin() + kFirst, parent.begin() + size_, 0);
}

void Beam::replace(PrefixTree& tree, std::uint32_t slot, std::uint32_t child) {
    PrefixNode& own = tree[child];
    PrefixNode& above = tree[own.parent];
    above.slot = 0;
    own.slot = slot;
    node[slot] = child;
    label[slot] = static_cast<std::int32_t>(own.label);
    differs[slot] = above.label == own.label ? 0.0 : 1.0;
    model[slot] = own.state.score;
    std::fill_n(gains_.begin() + static_cast<std::ptrdiff_t>(slot) * stride_, columns_, kUnknown);
}

void Beam::settle(PrefixTree& tree) {
    for (const std::uint32_t left : leaving_) tree.release(left);
    leaving_.clear();
    if (free_.empty()) return;
    // The slots at the end fill the gaps.
    std::sort(free_.begin(), free_.end());
    const std::uint32_t size = size_ - static_cast<std::uint32_t>(free_.size());
    std::size_t hole = 0, last = free_.size();
    for (std::uint32_t from = size_; from-- > size;) {
        if (last > 0 && free_[last - 1] == from) {
            --last;
        } else {
            move(tree, from, free_[hole++]);
        }
    }
    free_.clear();
    size_ = size;
}

void Beam::move(PrefixTree& tree, std::uint32_t from, std::uint32_t to) {
    label[to] = label[from];
    parent[to] = parent[from];
    for (auto* column : {&differs, &blank, &label_end, &model, &headroom, &letter_headroom, &score,
                         &new_blank, &new_label_end, &new_score})
        (*column)[to] = (*column)[from];
    node[to] = node[from];
    remember(to, history_[from]);
    const auto row = gains_.begin() + static_cast<std::ptrdiff_t>(from) * stride_;
    std::copy(row, row + columns_, gains_.begin() + static_cast<std::ptrdiff_t>(to) * stride_);
    tree[node[to]].slot = to;
    tell_children(tree, node[to], to);
    clear(from);
}

}  // namespace longhand
