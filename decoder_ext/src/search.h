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
// With PathMerge::kMax the sums become maxima. The probabilities are kept themselves, not their logarithms:
// each frame is taken relative to its best label, and the beam is scaled back by a power of two when it
// drifts out of range, so nothing is lost to rounding.
//
// Prefixes enter and leave the beam in frames where some label may begin a new prefix. In the others, mostly
// those sure of a blank, a frame costs two multiplications for each prefix.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "beam.h"
#include "frames.h"
#include "prefix_tree.h"
#include "scorer.h"

namespace longhand {

// A prefix at the end of the line.
struct FinalPrefix {
    std::uint32_t node;
    double acoustic;  // log P(y | x)
    ModelState state;
    double score() const { return acoustic + state.score; }
};

// A prefix that may enter the beam.
struct Candidate {
    double score;
    double probability;
    std::uint32_t parent, label;  // the parent's node
};

// What one thread needs to search, kept from line to line.
struct Workspace {
    explicit Workspace(const DecoderModel& model) : cache(model) {}
    // Gives back what an unusually long line took.
    void trim() {
        cache.trim();
        tree.trim();
        beam.trim();
    }
    ScoreCache cache;
    PrefixTree tree;
    Beam beam;
    std::vector<std::uint32_t> chosen;
    std::vector<Candidate> candidates;
    std::vector<double> ranking;
};

// The search over one line. For one thread at a time.
class BeamSearch {
  public:
    BeamSearch(const PreparedOptions& options, Workspace& workspace);

    void advance(const Frame& frame);
    // What the beam holds, best first, if the line ends here. Prefixes that a closed lexicon forbids are left
    // out.
    std::vector<FinalPrefix> finish();
    // The first of them alone.
    std::optional<FinalPrefix> finish_best();
    const PrefixTree& tree() const { return tree_; }

  private:
    void step(const Frame& frame);
    void refresh_scores();
    bool can_extend_all(std::uint32_t label) const;
    void extend_all(std::uint32_t label);
    void expand(const Frame& frame);
    void set_headroom(std::uint32_t slot, const ModelState& state);
    void propose(const Frame& frame, const Token& token);
    void consider(const Candidate& candidate);
    void raise_bar(const Candidate& candidate);
    double best_without_credit() const;
    double cut() const;
    void select();
    std::uint32_t add(std::uint32_t parent, std::uint32_t label);
    std::size_t enter(const Candidate& candidate);
    bool drifts_down() const;
    void rescale();
    FinalPrefix final_prefix(std::uint32_t slot, double least);
    static bool better(const FinalPrefix& a, const FinalPrefix& b);
    double joined(double a, double b) const { return sums_ ? a + b : (a > b ? a : b); }

    const PreparedOptions& options_;
    const std::size_t width_;
    const bool sums_;
    const bool merges_;
    Workspace& workspace_;
    PrefixTree& tree_;
    Beam& beam_;
    Scorer scorer_;
    std::int32_t frame_ = 0;
    double log_scale_ = 0.0;                     // what all probabilities of the beam are relative to
    bool stale_ = false;                         // the scores are those of an earlier frame
    std::uint32_t last_only_ = Frame::kSeveral;  // the one label that was possible in the last frame
    double best_ = 0.0;                          // the best score of this frame so far, without credit
    double bar_ = 0.0;  // what a prefix needs to have a chance of being in the beam after it
};

}  // namespace longhand
