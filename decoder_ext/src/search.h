// CTC prefix beam search.
//
//   score(y) = log P(y | x) + models(y)                                     (models: see scorer.h)
//   P(y | x) = sum over all paths that collapse to y of the product of their frames' probabilities
//
// A. Graves (2012), "Supervised Sequence Labelling with Recurrent Neural Networks", section 7.5; A. Hannun et
// al. (2014), "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent
// DNNs". For a prefix y that ends with label c, with parent p = y without c, each frame with probabilities q
// does
//
//   blank'(y)     = (blank(y) + label_end(y)) * q(blank)
//   label_end'(y) = (label_end(y) + blank(p) + [p does not end with c] * label_end(p)) * q(c)
//
// With PathMerge::kMax the sums become maxima. The probabilities are kept themselves, not their logarithms: a
// frame then costs multiplications and one logarithm for each prefix. Each frame is taken relative to its
// best label, and the beam is scaled back by a power of two when it drifts out of range, so nothing is lost
// to rounding.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "frames.h"
#include "prefix_tree.h"
#include "scorer.h"

namespace longhand {

struct BeamColumns;

// A prefix at the end of the line.
struct FinalPrefix {
    std::uint32_t node;
    double acoustic;  // log P(y | x)
    ModelState state;
    double score() const { return acoustic + state.score; }
};

// What one thread needs to search, kept from line to line.
struct Workspace {
    explicit Workspace(const DecoderModel& model) : cache(model) {}
    // Gives back what an unusually long line took.
    void trim() {
        cache.trim();
        tree.trim();
    }
    ScoreCache cache;
    PrefixTree tree;
};

// The search over one line. For one thread at a time.
class BeamSearch {
  public:
    BeamSearch(const PreparedOptions& options, Workspace& workspace);

    void advance(const Frame& frame);
    // What the beam holds, best first, if the line ends here. Prefixes that a closed lexicon forbids are left
    // out.
    std::vector<FinalPrefix> finish();
    const PrefixTree& tree() const { return tree_; }
    std::size_t width() const { return size_; }

  private:
    struct Columns {
        std::vector<std::int32_t> label, parent;
        std::vector<double> differs, blank, label_end, model;
        void resize(std::size_t count);
    };
    // A prefix that may enter the beam.
    struct Candidate {
        double score;
        double probability;
        std::uint32_t node;
    };
    // A prefix that the models have not seen yet.
    struct Proposal {
        double most;  // no more than this can its score be
        double path_score;
        double probability;
        std::uint32_t slot, label;
        bool operator<(const Proposal& other) const { return most < other.most; }
    };

    void expand(const Frame& frame);
    void propose(const Frame& frame, std::size_t slot);
    void consider(double path_score, double probability, std::uint32_t node);
    void note(double score);
    void select();
    void merge_histories();
    void rebuild();
    void rescale();
    double joined(double a, double b) const { return sums_ ? a + b : (a > b ? a : b); }

    const PreparedOptions& options_;
    const std::size_t width_;
    const bool sums_;
    Scorer scorer_;
    PrefixTree& tree_;
    std::int32_t frame_ = 0;
    double log_scale_ = 0.0;  // what all probabilities of the beam are relative to

    std::size_t size_ = 0;
    std::vector<std::uint32_t> nodes_, next_nodes_;  // the tree's node of each slot
    Columns now_;                                    // before the frame
    std::vector<double> score_;                      // acoustic + models, before the frame
    std::vector<double> new_blank_, new_label_end_, new_score_;
    std::vector<Candidate> candidates_;
    std::vector<Proposal> proposals_;  // a heap, the most promising on top
    std::vector<double> top_;          // a heap of the best `width_` scores of this frame, the least on top
    double best_ = 0.0;                // the best score of this frame so far
    double bar_ = 0.0;                 // what a prefix needs to have a chance of being in the beam after it
    struct Ranked {
        double score;
        std::uint32_t index;  // a slot, or size_ + a candidate
    };
    std::vector<Ranked> ranked_;
    std::vector<std::pair<std::uint64_t, std::uint32_t>> histories_;  // hash table: history, place in ranked_
    std::vector<std::uint32_t> child_of_label_;                       // of the prefix that is being expanded
};

}  // namespace longhand
