// CTC prefix beam search with word and character n-gram language models.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "longhand_decoder/language_model.h"
#include "longhand_decoder/options.h"

namespace longhand {

// A view of one line's network output, row-major (frames, labels). The caller keeps the numbers alive.
struct LogProbs {
    const float* values = nullptr;
    std::size_t frames = 0;
    std::size_t labels = 0;
};

// A stretch of a hypothesis: one character, or one word between spaces.
struct Span {
    std::string text;         // UTF-8
    int first_frame = 0;      // on the most probable path through the input that spells the text
    int last_frame = 0;       // inclusive
    double confidence = 0.0;  // 0..1: share of the beam's probability that has this stretch here
};

struct Hypothesis {
    std::string text;                    // UTF-8
    double score = 0.0;                  // what the search maximises, natural log
    double acoustic_score = 0.0;         // log P(text | network output), what the priors take off included
    double word_model_score = 0.0;       // natural log-probability, unweighted
    double character_model_score = 0.0;  // natural log-probability, unweighted
    double confidence = 0.0;             // 0..1: share of the beam's probability
    std::vector<Span> characters;
    std::vector<Span> words;
};

struct BatchItem {
    std::vector<Hypothesis> hypotheses;  // best first; empty if `error` is set
    std::exception_ptr error;
};

struct TextItem {
    std::string text;  // empty if `error` is set
    std::exception_ptr error;
};

struct DecoderConfig {
    std::vector<std::string> labels;  // UTF-8, one code point each; the empty one is the blank
    std::shared_ptr<const NgramLanguageModel> word_model;       // may be null
    std::shared_ptr<const NgramLanguageModel> character_model;  // may be null; a space is the token U+2581
    // The known words, in place of the word model's own vocabulary; empty: the word model's.
    std::vector<std::string> lexicon;
    // How often the network says each label, on average over many frames, >= 0; only the ratios between the
    // characters count. Empty: not known.
    std::vector<double> label_priors;
    BeamSearchOptions options;
    int threads = 1;  // for batches
};

// Options made ready for one decoder: hotword automaton, start contexts, label mask. Shared freely between
// threads.
class PreparedOptions;

class DecoderStream;

// Immutable after construction: any number of threads may use one decoder at a time.
class CtcBeamSearchDecoder {
  public:
    explicit CtcBeamSearchDecoder(DecoderConfig config);
    ~CtcBeamSearchDecoder();
    CtcBeamSearchDecoder(const CtcBeamSearchDecoder&) = delete;
    CtcBeamSearchDecoder& operator=(const CtcBeamSearchDecoder&) = delete;

    std::shared_ptr<const PreparedOptions> prepare(const BeamSearchOptions& options) const;
    std::shared_ptr<const PreparedOptions> default_options() const;

    // All throw std::invalid_argument if the numbers are no log-probabilities of these labels.
    std::vector<Hypothesis> decode(const LogProbs& line) const { return decode(line, *default_options()); }
    std::vector<Hypothesis> decode(const LogProbs& line, const PreparedOptions& options) const;
    // The text of the best hypothesis alone: spares the work that goes into scores, frames and confidences.
    std::string decode_text(const LogProbs& line, const PreparedOptions& options) const;
    std::vector<BatchItem> decode_batch(const std::vector<LogProbs>& lines,
                                        const PreparedOptions& options) const;
    std::vector<TextItem> decode_text_batch(const std::vector<LogProbs>& lines,
                                            const PreparedOptions& options) const;
    Hypothesis decode_greedy(const LogProbs& line, const PreparedOptions& options) const;
    std::vector<BatchItem> decode_greedy_batch(const std::vector<LogProbs>& lines,
                                               const PreparedOptions& options) const;

    // Decodes a line whose frames arrive bit by bit. The decoder must outlive the stream.
    std::unique_ptr<DecoderStream> start(std::shared_ptr<const PreparedOptions> options) const;

    const std::vector<std::string>& labels() const;

  private:
    friend class DecoderStream;
    class Implementation;
    std::unique_ptr<Implementation> implementation_;
};

// One line in progress. For one thread at a time.
class DecoderStream {
  public:
    ~DecoderStream();
    void push(const LogProbs& chunk);      // takes the next frames
    std::vector<Hypothesis> best() const;  // as if the line ended here
    std::vector<Hypothesis> finish();      // the result; push() and finish() then throw std::logic_error
    std::size_t frames() const;

  private:
    friend class CtcBeamSearchDecoder;
    class Implementation;
    explicit DecoderStream(std::unique_ptr<Implementation> implementation);
    std::unique_ptr<Implementation> implementation_;
};

}  // namespace longhand
