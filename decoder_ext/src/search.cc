#include "search.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <tuple>
#include <utility>

namespace longhand {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLeast = std::numeric_limits<double>::min();
constexpr double kFarBelow = 0x1p-256;  // where the beam is scaled back
constexpr double kFarAbove = 0x1p+256;
// Each frame multiplies a beam by less than 4, so that so many cannot take it out of a double's range. Only
// frames with tokens can make it much smaller: drifts_down() looks at each of those.
constexpr std::int32_t kFramesBetweenChecks = 64;
const double kScaleStep = 256 * std::log(2.0);

// `heap` has its least score on top: another one, no less, takes its place.
void replace_least(std::vector<double>& heap, double score) {
    std::size_t hole = 0;
    for (std::size_t child = 1; child < heap.size(); child = 2 * hole + 1) {
        if (child + 1 < heap.size() && heap[child + 1] < heap[child]) ++child;
        if (heap[child] >= score) break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = score;
}
}  // namespace

BeamSearch::BeamSearch(const PreparedOptions& options, Workspace& workspace)
    : options_(options),
      width_(static_cast<std::size_t>(options.options.beam_width)),
      sums_(options.options.path_merge == PathMerge::kSum),
      merges_(options.options.merge_histories && (options.uses_words || options.uses_characters)),
      workspace_(workspace),
      tree_(workspace.tree),
      beam_(workspace.beam),
      scorer_(options, workspace.cache) {
    const auto labels = static_cast<std::uint32_t>(options.model->labels.size());
    tree_.reset(labels, scorer_.start());
    beam_.reset(labels);
    // The empty prefix before the first frame: as if a blank with probability 1 stood there.
    const std::uint32_t slot = beam_.enter(tree_, PrefixTree::kRoot);
    const ModelState& start = tree_[PrefixTree::kRoot].state;
    beam_.blank[slot] = 1.0;
    beam_.score[slot] = start.score;
    set_headroom(slot, start);
}

void BeamSearch::advance(const Frame& frame) {
    if (frame.only == last_only_ && frame.only != Frame::kSeveral) {
        // The same label for sure as in the last frame: nothing changes but the scale.
    } else if (frame.tokens.empty()) {
        step(frame);
        beam_.blank.swap(beam_.new_blank);
        beam_.label_end.swap(beam_.new_label_end);
        stale_ = true;
    } else if (frame.only != Frame::kSeveral && can_extend_all(frame.only)) {
        if (stale_) refresh_scores();
        extend_all(frame.only);
    } else {
        if (stale_) refresh_scores();
        step(frame);
        const auto scores = sums_ ? scores_sum : scores_max;
        best_ = scores(beam_.new_blank.data(), beam_.new_label_end.data(), beam_.model.data(), beam_.size(),
                       beam_.new_score.data());
        if (scorer_.has_hotwords()) best_ = best_without_credit();
        expand(frame);
        select();
    }
    if (frame_ % kFramesBetweenChecks == 0 || (!frame.tokens.empty() && drifts_down())) rescale();
    last_only_ = frame.only;
    log_scale_ += frame.log_scale;
    ++frame_;
}

// What the frame does to the prefixes that are in the beam.
void BeamSearch::step(const Frame& frame) {
    const double blank = frame.probabilities[options_.model->labels.blank()];
    (sums_ ? advance_sum : advance_max)(beam_.step_columns(), beam_.size(), frame.probabilities.data(),
                                        blank);
}

void BeamSearch::refresh_scores() {
    const auto scores = sums_ ? scores_sum : scores_max;
    scores(beam_.blank.data(), beam_.label_end.data(), beam_.model.data(), beam_.size(), beam_.score.data());
    stale_ = false;
}

// Whether a frame that can only be this label makes each prefix in the beam longer by it.
bool BeamSearch::can_extend_all(std::uint32_t label) const {
    const auto begin = beam_.label.begin() + Beam::kFirst, end = beam_.label.begin() + beam_.size();
    return std::find(begin, end, static_cast<std::int32_t>(label)) == end;
}

// Where expand() and select() would let every prefix leave and a longer one enter, each takes its place.
void BeamSearch::extend_all(std::uint32_t label) {
    const double threshold = options_.options.beam_threshold;
    const double start = scorer_.hotword_start(label);
    best_ = -kInfinity;
    beam_.detach_parents();
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        const double probability = joined(beam_.blank[slot], beam_.label_end[slot]);
        const double least = std::max(best_ + threshold, std::numeric_limits<double>::lowest());
        if (probability < kLeast || beam_.score[slot] + beam_.headroom[slot] + start <= least) {
            beam_.leave(tree_, slot);
            continue;
        }
        const std::uint32_t parent = beam_.node[slot];
        std::uint32_t node = tree_.child(parent, label);
        const bool known = node != PrefixNode::kNone;
        if (!known) node = add(parent, label);
        ModelState& state = tree_[node].state;
        const double score = beam_.score[slot] - beam_.model[slot] + state.score;
        bool leaves = state.forbidden || score <= least;
        std::uint64_t history = 0;
        if (merges_ && !leaves) {
            history = scorer_.history(tree_, parent, label, state);
            const std::uint32_t twin = beam_.find(history);
            leaves = twin != 0 && beam_.score[twin] >= score;
            if (twin != 0 && !leaves) beam_.leave(tree_, twin);
        }
        if (leaves) {
            beam_.leave(tree_, slot);
            if (!known) tree_.take_back(node);
            continue;
        }
        PrefixNode& own = tree_[node];
        beam_.replace(tree_, slot, node);
        beam_.blank[slot] = 0.0;
        beam_.label_end[slot] = probability;
        beam_.score[slot] = score;
        set_headroom(slot, own.state);
        beam_.remember(slot, history);
        best_ = std::max(best_, score - scorer_.credit(own.state));
    }
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        if (beam_.node[slot] != PrefixNode::kNone && beam_.score[slot] < best_ + threshold)
            beam_.leave(tree_, slot);
    }
    beam_.settle(tree_);
}

void BeamSearch::expand(const Frame& frame) {
    workspace_.candidates.clear();
    workspace_.ranking.clear();
    bar_ = std::max(best_ + options_.options.beam_threshold, std::numeric_limits<double>::lowest());
    if (beam_.prefixes() >= width_) {
        workspace_.ranking.assign(beam_.new_score.begin() + Beam::kFirst,
                                  beam_.new_score.begin() + beam_.size());
        std::make_heap(workspace_.ranking.begin(), workspace_.ranking.end(), std::greater<>());
        bar_ = std::max(bar_, workspace_.ranking.front());
    }
    workspace_.chosen.resize(beam_.size() + kBeamLanes);
    for (const Token& token : frame.tokens) propose(frame, token);
}

void BeamSearch::set_headroom(std::uint32_t slot, const ModelState& state) {
    beam_.headroom[slot] = scorer_.largest_gain(state);
    beam_.letter_headroom[slot] = scorer_.largest_gain(state, CharacterClass::kLetter);
}

// The prefixes that are longer by `token`.
void BeamSearch::propose(const Frame& frame, const Token& token) {
    const double probability_of_token = frame.probabilities[token.label];
    const CharacterClass next = options_.classes[token.label];
    const std::uint32_t column = beam_.column(token.label);
    const double *scores = beam_.score.data(), *models = beam_.model.data();
    const std::uint32_t* nodes = beam_.node.data();
    const double *blanks = beam_.blank.data(), *label_ends = beam_.label_end.data();
    const bool letter = next == CharacterClass::kLetter;  // mostly
    const double* headroom = (letter ? beam_.letter_headroom : beam_.headroom).data();
    const double start = scorer_.hotword_start(token.label);
    std::uint32_t* chosen = workspace_.chosen.data();
    const std::size_t found =
        sums_above(scores, headroom, beam_.size(), bar_ - token.log_probability - start, chosen);
    for (std::size_t i = 0; i < found; ++i) {
        const std::uint32_t slot = chosen[i];
        float gain = beam_.gain(slot, column);
        if (gain == Beam::kInBeam) continue;  // step() has seen to it
        const double model = models[slot];
        const bool known = !Beam::unknown(gain);
        const double most_gain =
            known ? gain
                  : start + (letter ? headroom[slot] : scorer_.largest_gain(tree_[nodes[slot]].state, next));
        double path_score = scores[slot] - model + token.log_probability;
        if (path_score + model + most_gain <= bar_) continue;
        double probability = joined(blanks[slot], label_ends[slot]) * probability_of_token;
        if (beam_.label[slot] == static_cast<std::int32_t>(token.label)) {
            // A label behind itself is a new character only if a blank stands between.
            probability = blanks[slot] * probability_of_token;
            path_score = std::log(probability);
        }
        if (probability < kLeast || path_score + model + most_gain <= bar_) continue;
        if (!known) beam_.gain(slot, column) = gain = scorer_.gain(tree_, nodes[slot], token.label);
        consider({path_score + model + gain, probability, nodes[slot], token.label});
    }
}

void BeamSearch::consider(const Candidate& candidate) {
    if (candidate.score <= bar_) return;
    Candidate& fresh = workspace_.candidates.emplace_back();
    fresh.score = candidate.score;
    fresh.probability = candidate.probability;
    fresh.parent = candidate.parent;
    fresh.label = candidate.label;
    raise_bar(candidate);
}

// `ranking` is a heap of the best `width_` scores, the least on top, as soon as there are as many.
void BeamSearch::raise_bar(const Candidate& candidate) {
    auto& ranking = workspace_.ranking;
    const double score = candidate.score;
    if (score > best_)  // mostly not; and credit is never less than 0
        best_ = std::max(best_, score - scorer_.credit(tree_, candidate.parent, candidate.label));
    bar_ = std::max(bar_, best_ + options_.options.beam_threshold);
    if (!ranking.empty()) {
        replace_least(ranking, score);
    } else if (beam_.prefixes() + workspace_.candidates.size() == width_) {
        ranking.assign(beam_.new_score.begin() + Beam::kFirst, beam_.new_score.begin() + beam_.size());
        for (const Candidate& other : workspace_.candidates) ranking.push_back(other.score);
        std::make_heap(ranking.begin(), ranking.end(), std::greater<>());
    } else {
        return;
    }
    bar_ = std::max(bar_, ranking.front());
}

// A hotword that has begun may come to nothing. What its prefix has been given for it keeps this one in the
// beam, but lets no other fall below the threshold.
double BeamSearch::best_without_credit() const {
    double best = -kInfinity;
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        best = std::max(best, beam_.new_score[slot] - scorer_.credit(tree_[beam_.node[slot]].state));
    }
    return best;
}

// The least score that stays in the beam.
double BeamSearch::cut() const {
    const double threshold = best_ + options_.options.beam_threshold;
    return workspace_.ranking.empty() ? threshold : std::max(threshold, workspace_.ranking.front());
}

void BeamSearch::select() {
    const double least = cut();
    std::size_t room = width_;
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        const double score = beam_.new_score[slot];
        if (score >= least && score > -kInfinity) {
            --room;
        } else {
            beam_.leave(tree_, slot);
        }
    }
    auto& candidates = workspace_.candidates;
    const auto below = [least](const Candidate& candidate) { return candidate.score < least; };
    candidates.erase(std::remove_if(candidates.begin(), candidates.end(), below), candidates.end());
    // Where there is room for all, their order does not matter: of twins the better one stays.
    if (candidates.size() > room) {
        std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
            return std::tie(b.score, a.label, a.parent) < std::tie(a.score, b.label, b.parent);
        });
    }
    for (const Candidate& candidate : candidates) {
        if (room == 0) break;
        room -= enter(candidate);
    }
    beam_.settle(tree_);
    beam_.blank.swap(beam_.new_blank);
    beam_.label_end.swap(beam_.new_label_end);
    beam_.score.swap(beam_.new_score);
}

// A new node in the tree, with its state.
std::uint32_t BeamSearch::add(std::uint32_t parent, std::uint32_t label) {
    const std::uint32_t node = tree_.add(parent, label);
    scorer_.extend(tree_, parent, label, tree_[node].state);
    return node;
}

// By how many prefixes the beam has grown: not at all if a prefix that the models cannot tell apart from this
// one is there. The better of the two stays.
std::size_t BeamSearch::enter(const Candidate& candidate) {
    std::uint32_t node = tree_.child(candidate.parent, candidate.label);
    const bool known = node != PrefixNode::kNone;
    if (!known) node = add(candidate.parent, candidate.label);
    PrefixNode& own = tree_[node];
    std::size_t grown = 1;
    std::uint64_t history = 0;
    if (merges_) {
        history = scorer_.history(tree_, candidate.parent, candidate.label, own.state);
        const std::uint32_t twin = beam_.find(history);
        if (twin != 0) {
            if (beam_.new_score[twin] >= candidate.score) {
                if (!known) tree_.take_back(node);
                return 0;
            }
            beam_.leave(tree_, twin);
            grown = 0;
        }
    }
    const std::uint32_t slot = beam_.enter(tree_, node);
    beam_.new_blank[slot] = 0.0;
    beam_.new_label_end[slot] = candidate.probability;
    beam_.new_score[slot] = candidate.score;
    set_headroom(slot, own.state);
    beam_.remember(slot, history);
    return grown;
}

// Whether all probabilities may have become too small. Mostly one look shows that they have not.
bool BeamSearch::drifts_down() const {
    return beam_.blank[Beam::kFirst] < kFarBelow && beam_.label_end[Beam::kFirst] < kFarBelow;
}

void BeamSearch::rescale() {
    double largest = 0.0;
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        largest = std::max(largest, std::max(beam_.blank[slot], beam_.label_end[slot]));
    }
    if ((largest >= kFarBelow && largest <= kFarAbove) || largest == 0.0) return;
    const bool small = largest < kFarBelow;
    const double factor = small ? kFarAbove : kFarBelow, shift = small ? kScaleStep : -kScaleStep;
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        beam_.blank[slot] *= factor;
        beam_.label_end[slot] *= factor;
        beam_.score[slot] += shift;
    }
    log_scale_ -= shift;
}

// Its score need not be exact where it is below `least`.
FinalPrefix BeamSearch::final_prefix(std::uint32_t slot, double least) {
    const double probability = joined(beam_.blank[slot], beam_.label_end[slot]);
    const double acoustic = std::log(probability) + log_scale_;
    const std::uint32_t node = beam_.node[slot];
    return {node, acoustic, scorer_.finish(tree_, node, least - acoustic)};
}

bool BeamSearch::better(const FinalPrefix& a, const FinalPrefix& b) {
    return a.score() != b.score() ? a.score() > b.score() : a.node < b.node;
}

std::vector<FinalPrefix> BeamSearch::finish() {
    std::vector<FinalPrefix> finals;
    finals.reserve(beam_.prefixes());
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        const FinalPrefix prefix = final_prefix(slot, -kInfinity);
        if (!prefix.state.forbidden && prefix.acoustic > -kInfinity) finals.push_back(prefix);
    }
    std::sort(finals.begin(), finals.end(), better);
    return finals;
}

std::optional<FinalPrefix> BeamSearch::finish_best() {
    if (stale_) refresh_scores();
    // From the prefix that may come first on: most of the others then need no asking.
    std::vector<std::pair<double, std::uint32_t>> order;
    order.reserve(beam_.prefixes());
    for (std::uint32_t slot = Beam::kFirst; slot < beam_.size(); ++slot) {
        const double most = beam_.score[slot] + scorer_.largest_final_gain(tree_[beam_.node[slot]].state);
        if (most > -kInfinity) order.emplace_back(most + log_scale_, slot);
    }
    std::sort(order.begin(), order.end(), std::greater<>());
    constexpr double kRounding = 1e-6;
    std::optional<FinalPrefix> best;
    for (const auto& [most, slot] : order) {
        const double least = best ? best->score() - kRounding : -kInfinity;
        if (most < least) break;
        const FinalPrefix prefix = final_prefix(slot, least);
        if (!prefix.state.forbidden && (!best || better(prefix, *best))) best = prefix;
    }
    return best;
}

}  // namespace longhand
