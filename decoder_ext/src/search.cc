#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "frame_math.h"

namespace longhand {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kFarBelow = 0x1p-256;  // where the beam is scaled back
constexpr double kFarAbove = 0x1p+256;
const double kScaleStep = 256 * std::log(2.0);
}  // namespace

void BeamSearch::Columns::resize(std::size_t count) {
    label.resize(count);
    parent.resize(count);
    for (auto* column : {&differs, &blank, &label_end, &model}) column->resize(count);
}

BeamSearch::BeamSearch(const PreparedOptions& options, Workspace& workspace)
    : options_(options),
      width_(static_cast<std::size_t>(options.options.beam_width)),
      sums_(options.options.path_merge == PathMerge::kSum),
      scorer_(options, workspace.cache),
      tree_(workspace.tree) {
    const auto labels = static_cast<std::uint32_t>(options.model->labels.size());
    tree_.reset(labels, scorer_.start());
    tree_.activate(PrefixTree::kRoot, 0, 0);
    child_of_label_.assign(labels, PrefixNode::kNone);
    // The empty prefix before the first frame: as if a blank with probability 1 stood there.
    size_ = 1;
    nodes_.push_back(PrefixTree::kRoot);
    rebuild();
    now_.blank[0] = 1.0;
    score_.assign(1, tree_[PrefixTree::kRoot].state.score);
}

void BeamSearch::advance(const Frame& frame) {
    new_blank_.resize(size_);
    new_label_end_.resize(size_);
    new_score_.resize(size_);
    const BeamColumns columns{now_.label.data(), now_.parent.data(),    now_.differs.data(),
                              now_.blank.data(), now_.label_end.data(), now_.model.data(),
                              new_blank_.data(), new_label_end_.data(), new_score_.data()};
    const double blank = frame.probabilities[options_.model->labels.blank()];
    (sums_ ? advance_sum : advance_max)(columns, size_, frame.probabilities.data(), blank);
    log_scale_ += frame.log_scale;
    best_ = -kInfinity;
    double worst = kInfinity;
    for (const double score : new_score_) {
        best_ = std::max(best_, score);
        worst = std::min(worst, score);
    }
    candidates_.clear();
    // Most frames are sure of a blank: then nothing new begins, and usually the beam stays as it is.
    if (!frame.tokens.empty()) expand(frame);
    if (candidates_.empty() && worst >= best_ + options_.options.beam_threshold && worst > -kInfinity) {
        std::copy(new_blank_.begin(), new_blank_.end(), now_.blank.begin());
        std::copy(new_label_end_.begin(), new_label_end_.end(), now_.label_end.begin());
        score_.swap(new_score_);
    } else {
        select();
    }
    rescale();
    ++frame_;
}

void BeamSearch::expand(const Frame& frame) {
    top_ = new_score_;
    std::make_heap(top_.begin(), top_.end(), std::greater<double>());
    bar_ = best_ + options_.options.beam_threshold;
    if (size_ >= width_) bar_ = std::max(bar_, top_.front());
    proposals_.clear();
    const double most = frame.tokens.front().log_probability + scorer_.largest_gain();
    for (std::size_t slot = 0; slot < size_; ++slot) {
        if (score_[slot] + most > bar_) propose(frame, slot);
    }
    // The models are asked for the most promising prefixes first: the bar rises fast, and most need no
    // asking.
    std::make_heap(proposals_.begin(), proposals_.end());
    for (auto end = proposals_.end(); end != proposals_.begin() && proposals_.front().most > bar_; --end) {
        std::pop_heap(proposals_.begin(), end);
        const Proposal& best = *(end - 1);
        const std::uint32_t parent = nodes_[best.slot];
        const std::uint32_t child = tree_.add(parent, best.label, scorer_.extend(tree_, parent, best.label));
        consider(best.path_score, best.probability, child);
    }
}

// The prefixes that are one label longer than the one in `slot`.
void BeamSearch::propose(const Frame& frame, std::size_t slot) {
    const std::uint32_t node = nodes_[slot];
    const Pending pending = tree_[node].state.pending;
    const double most = score_[slot] + scorer_.largest_gain();
    const double path_score = score_[slot] - now_.model[slot];
    const double all = joined(now_.blank[slot], now_.label_end[slot]);
    for (std::uint32_t c = tree_[node].first_child; c != PrefixNode::kNone; c = tree_[c].next_sibling) {
        child_of_label_[tree_[c].label] = c;
    }
    for (const Token& token : frame.tokens) {
        // Tokens come in falling order, and models only ever add their gain: the rest has no chance either.
        if (most + token.log_probability <= bar_) break;
        double score = path_score + token.log_probability;
        double probability = all * frame.probabilities[token.label];
        if (now_.label[slot] == static_cast<std::int32_t>(token.label)) {
            // A label behind itself is a new character only if a blank stands between.
            probability = now_.blank[slot] * frame.probabilities[token.label];
            score = std::log(probability);
        }
        if (probability < std::numeric_limits<double>::min()) continue;
        const std::uint32_t child = child_of_label_[token.label];
        if (child == PrefixNode::kNone) {
            const double gain = scorer_.largest_gain(pending, options_.classes[token.label]);
            const double most_here = score + now_.model[slot] + gain;
            const auto place = static_cast<std::uint32_t>(slot);
            if (most_here > bar_) proposals_.push_back({most_here, score, probability, place, token.label});
        } else if (tree_[child].slot < 0) {  // if it is in the beam, advance() has seen to it
            consider(score, probability, child);
        }
    }
    for (std::uint32_t c = tree_[node].first_child; c != PrefixNode::kNone; c = tree_[c].next_sibling) {
        child_of_label_[tree_[c].label] = PrefixNode::kNone;
    }
}

void BeamSearch::consider(double path_score, double probability, std::uint32_t node) {
    const ModelState& state = tree_[node].state;
    const double score = path_score + state.score;
    if (score <= bar_ || state.forbidden) return;
    candidates_.push_back({score, probability, node});
    note(score);
}

// Raises the bar for a score above it.
void BeamSearch::note(double score) {
    best_ = std::max(best_, score);
    if (top_.size() >= width_) {
        std::pop_heap(top_.begin(), top_.end(), std::greater<double>());
        top_.back() = score;
    } else {
        top_.push_back(score);
    }
    std::push_heap(top_.begin(), top_.end(), std::greater<double>());
    bar_ = std::max(bar_, best_ + options_.options.beam_threshold);
    if (top_.size() >= width_) bar_ = std::max(bar_, top_.front());
}

void BeamSearch::select() {
    const double least = best_ + options_.options.beam_threshold;
    ranked_.clear();
    const auto rank = [&](double score, std::size_t index) {
        if (score >= least && score > -kInfinity)
            ranked_.push_back({score, static_cast<std::uint32_t>(index)});
    };
    for (std::size_t slot = 0; slot < size_; ++slot) rank(new_score_[slot], slot);
    for (std::size_t i = 0; i < candidates_.size(); ++i) rank(candidates_[i].score, size_ + i);
    const bool models = options_.uses_words || options_.uses_characters;
    if (options_.options.merge_histories && models) merge_histories();
    if (ranked_.size() > width_) {
        const auto better = [](const Ranked& a, const Ranked& b) {
            return a.score != b.score ? a.score > b.score : a.index < b.index;
        };
        const auto last = ranked_.begin() + static_cast<std::ptrdiff_t>(width_);
        std::nth_element(ranked_.begin(), last, ranked_.end(), better);
        ranked_.erase(last, ranked_.end());
    }
    next_nodes_.clear();
    now_.resize(ranked_.size() + 1);
    score_.resize(ranked_.size());
    for (std::size_t slot = 0; slot < ranked_.size(); ++slot) {
        const std::uint32_t index = ranked_[slot].index;
        const bool stays = index < size_;
        const std::uint32_t node = stays ? nodes_[index] : candidates_[index - size_].node;
        now_.blank[slot] = stays ? new_blank_[index] : 0.0;
        now_.label_end[slot] = stays ? new_label_end_[index] : candidates_[index - size_].probability;
        score_[slot] = ranked_[slot].score;
        next_nodes_.push_back(node);
        if (stays) nodes_[index] = PrefixNode::kNone;
        const auto place = static_cast<std::int32_t>(slot);
        if (stays) {
            tree_[node].slot = place;
        } else {
            tree_.activate(node, place, frame_);
        }
    }
    for (const std::uint32_t node : nodes_) {
        if (node != PrefixNode::kNone) tree_.deactivate(node);
    }
    nodes_.swap(next_nodes_);
    size_ = nodes_.size();
    rebuild();
}

void BeamSearch::merge_histories() {
    constexpr std::uint32_t kFree = 0xFFFFFFFFu;
    std::size_t size = 64;
    while (size < 2 * ranked_.size()) size *= 2;
    histories_.assign(size, {0, kFree});
    std::size_t kept = 0;
    for (const Ranked& entry : ranked_) {
        const std::uint32_t index = entry.index;
        const std::uint32_t node = index < size_ ? nodes_[index] : candidates_[index - size_].node;
        const std::uint64_t history = scorer_.history(tree_, node);
        std::size_t place = history & (size - 1);
        while (histories_[place].second != kFree && histories_[place].first != history) {
            place = (place + 1) & (size - 1);
        }
        if (histories_[place].second == kFree) {
            histories_[place] = {history, static_cast<std::uint32_t>(kept)};
            ranked_[kept++] = entry;
        } else if (entry.score > ranked_[histories_[place].second].score) {
            ranked_[histories_[place].second] = entry;
        }
    }
    ranked_.resize(kept);
}

// The columns that depend on who is in the beam.
void BeamSearch::rebuild() {
    now_.resize(size_ + 1);
    for (std::size_t slot = 0; slot < size_; ++slot) {
        const PrefixNode& node = tree_[nodes_[slot]];
        now_.label[slot] = static_cast<std::int32_t>(node.label);
        now_.model[slot] = node.state.score;
        now_.parent[slot] = static_cast<std::int32_t>(size_);
        now_.differs[slot] = 0.0;
        if (node.parent == PrefixNode::kNone) continue;
        const PrefixNode& parent = tree_[node.parent];
        if (parent.slot >= 0) now_.parent[slot] = parent.slot;
        now_.differs[slot] = parent.label == node.label ? 0.0 : 1.0;
    }
    // The slot past the beam stands for a parent that is not there.
    now_.blank[size_] = now_.label_end[size_] = 0.0;
}

void BeamSearch::rescale() {
    double largest = 0.0;
    for (std::size_t slot = 0; slot < size_; ++slot) {
        largest = std::max(largest, std::max(now_.blank[slot], now_.label_end[slot]));
    }
    if (largest >= kFarBelow && largest <= kFarAbove) return;
    const bool small = largest < kFarBelow;
    const double factor = small ? kFarAbove : kFarBelow, shift = small ? kScaleStep : -kScaleStep;
    for (std::size_t slot = 0; slot < size_; ++slot) {
        now_.blank[slot] *= factor;
        now_.label_end[slot] *= factor;
        score_[slot] += shift;
    }
    log_scale_ -= shift;
}

std::vector<FinalPrefix> BeamSearch::finish() {
    std::vector<FinalPrefix> finals;
    finals.reserve(size_);
    for (std::size_t slot = 0; slot < size_; ++slot) {
        const double probability = joined(now_.blank[slot], now_.label_end[slot]);
        FinalPrefix prefix{nodes_[slot], std::log(probability) + log_scale_,
                           scorer_.finish(tree_, nodes_[slot])};
        if (!prefix.state.forbidden) finals.push_back(prefix);
    }
    std::sort(finals.begin(), finals.end(), [](const FinalPrefix& a, const FinalPrefix& b) {
        return a.score() != b.score() ? a.score() > b.score() : a.node < b.node;
    });
    return finals;
}

}  // namespace longhand
