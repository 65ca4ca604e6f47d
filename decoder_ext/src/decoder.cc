#include "longhand_decoder/decoder.h"

#include <unistd.h>

#include <mutex>
#include <stdexcept>
#include <utility>

#include "capitals.h"
#include "frames.h"
#include "model.h"
#include "results.h"
#include "search.h"
#include "thread_pool.h"

namespace longhand {

namespace {

void require_own(const PreparedOptions& options, const DecoderModel& model) {
    if (options.model != &model)
        throw std::invalid_argument("these options were prepared for another decoder");
}

void search_line(const LogProbs& line, const PreparedOptions& options, BeamSearch& search, Purpose purpose) {
    FrameReader reader(options, purpose);
    Frame frame;
    for (std::size_t t = 0; t < line.frames; ++t) {
        reader.read(line.values + t * line.labels, t, frame);
        search.advance(frame);
    }
}

}  // namespace

class CtcBeamSearchDecoder::Implementation {
  public:
    explicit Implementation(DecoderConfig config)
        : model(std::move(config)),
          defaults(std::make_shared<PreparedOptions>(model, model.config.options)) {}

    ~Implementation() { forget_parents_pool(); }
    Implementation(const Implementation&) = delete;
    Implementation& operator=(const Implementation&) = delete;

    // The options to read a line with, whose shape is checked.
    const PreparedOptions& options_for(const LogProbs& line, const PreparedOptions& options) {
        require_own(options, model);
        check_shape(line, model.labels.size());
        if (!options.folds || !is_in_capitals(line, model.labels)) return options;
        return options.for_capitals(folded_model());
    }

    // A workspace for one thread, handed back when `lease` goes.
    class Lease {
      public:
        explicit Lease(Implementation& owner) : owner_(owner), workspace_(owner.take()) {}
        ~Lease() { owner_.give_back(std::move(workspace_)); }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        Workspace& operator*() const { return *workspace_; }

      private:
        Implementation& owner_;
        std::unique_ptr<Workspace> workspace_;
    };

    std::unique_ptr<Workspace> take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.empty()) return std::make_unique<Workspace>(model);
        auto workspace = std::move(idle_.back());
        idle_.pop_back();
        return workspace;
    }

    void give_back(std::unique_ptr<Workspace> workspace) {
        workspace->trim();
        const std::lock_guard<std::mutex> lock(mutex_);
        idle_.push_back(std::move(workspace));
    }

    ThreadPool& pool() {
        const std::lock_guard<std::mutex> lock(mutex_);
        forget_parents_pool();
        if (!pool_) {
            pool_ = std::make_unique<ThreadPool>(model.config.threads - 1);
            pool_owner_ = getpid();
        }
        return *pool_;
    }

    // `fill` puts the result of item i into it.
    template <class Item, class Fill>
    std::vector<Item> batch(std::size_t count, const Fill& fill) {
        std::vector<Item> items(count);
        pool().run(count, [&](std::size_t i) {
            try {
                fill(i, items[i]);
            } catch (...) {
                items[i].error = std::current_exception();
            }
        });
        return items;
    }

    const DecoderModel model;
    const std::shared_ptr<const PreparedOptions> defaults;

  private:
    // Threads do not survive a fork: the child makes its own and leaves the parent's object alone, which
    // would wait for its threads when it ends.
    void forget_parents_pool() {
        if (pool_ && pool_owner_ != getpid()) static_cast<void>(pool_.release());
    }

    const DecoderModel& folded_model() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!folded_) folded_ = std::make_unique<const DecoderModel>(model.config, LetterCase::kOther);
        return *folded_;
    }

    std::mutex mutex_;
    std::unique_ptr<const DecoderModel> folded_;  // made when it is first asked for
    std::vector<std::unique_ptr<Workspace>> idle_;
    std::unique_ptr<ThreadPool> pool_;
    pid_t pool_owner_ = 0;
};

CtcBeamSearchDecoder::CtcBeamSearchDecoder(DecoderConfig config)
    : implementation_(std::make_unique<Implementation>(std::move(config))) {}

CtcBeamSearchDecoder::~CtcBeamSearchDecoder() = default;

std::shared_ptr<const PreparedOptions> CtcBeamSearchDecoder::prepare(const BeamSearchOptions& options) const {
    return std::make_shared<PreparedOptions>(implementation_->model, options);
}

std::shared_ptr<const PreparedOptions> CtcBeamSearchDecoder::default_options() const {
    return implementation_->defaults;
}

std::vector<Hypothesis> CtcBeamSearchDecoder::decode(const LogProbs& line,
                                                     const PreparedOptions& given) const {
    const PreparedOptions& options = implementation_->options_for(line, given);
    const Implementation::Lease workspace(*implementation_);
    BeamSearch search(options, *workspace);
    search_line(line, options, search, Purpose::kScores);
    return make_hypotheses(options, line, search);
}

std::string CtcBeamSearchDecoder::decode_text(const LogProbs& line, const PreparedOptions& given) const {
    const PreparedOptions& options = implementation_->options_for(line, given);
    const Implementation::Lease workspace(*implementation_);
    BeamSearch search(options, *workspace);
    search_line(line, options, search, Purpose::kText);
    return best_text(options, search);
}

std::vector<BatchItem> CtcBeamSearchDecoder::decode_batch(const std::vector<LogProbs>& lines,
                                                          const PreparedOptions& options) const {
    return implementation_->batch<BatchItem>(
        lines.size(), [&](std::size_t i, BatchItem& item) { item.hypotheses = decode(lines[i], options); });
}

std::vector<TextItem> CtcBeamSearchDecoder::decode_text_batch(const std::vector<LogProbs>& lines,
                                                              const PreparedOptions& options) const {
    return implementation_->batch<TextItem>(
        lines.size(), [&](std::size_t i, TextItem& item) { item.text = decode_text(lines[i], options); });
}

Hypothesis CtcBeamSearchDecoder::decode_greedy(const LogProbs& line, const PreparedOptions& options) const {
    require_own(options, implementation_->model);
    check_shape(line, implementation_->model.labels.size());
    return greedy_hypothesis(options, line);
}

std::vector<BatchItem> CtcBeamSearchDecoder::decode_greedy_batch(const std::vector<LogProbs>& lines,
                                                                 const PreparedOptions& options) const {
    return implementation_->batch<BatchItem>(lines.size(), [&](std::size_t i, BatchItem& item) {
        item.hypotheses = {decode_greedy(lines[i], options)};
    });
}

const std::vector<std::string>& CtcBeamSearchDecoder::labels() const {
    return implementation_->model.labels.names();
}

class DecoderStream::Implementation {
  public:
    Implementation(const DecoderModel& model, std::shared_ptr<const PreparedOptions> prepared)
        : options(std::move(prepared)),
          workspace(model),
          search(*options, workspace),
          reader(*options, Purpose::kScores) {}

    LogProbs line() const { return {values.data(), frames, options->model->labels.size()}; }

    const std::shared_ptr<const PreparedOptions> options;
    Workspace workspace;
    BeamSearch search;
    FrameReader reader;
    Frame frame;
    std::vector<float> values;  // all frames so far: the places of the characters are found at the end
    std::size_t frames = 0;
    bool finished = false;
};

DecoderStream::DecoderStream(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

DecoderStream::~DecoderStream() = default;

std::unique_ptr<DecoderStream> CtcBeamSearchDecoder::start(
    std::shared_ptr<const PreparedOptions> options) const {
    require_own(*options, implementation_->model);
    auto state = std::make_unique<DecoderStream::Implementation>(implementation_->model, std::move(options));
    return std::unique_ptr<DecoderStream>(new DecoderStream(std::move(state)));
}

void DecoderStream::push(const LogProbs& chunk) {
    Implementation& state = *implementation_;
    if (state.finished) throw std::logic_error("the stream is finished: it takes no more frames");
    check_shape(chunk, state.options->model->labels.size());
    for (std::size_t t = 0; t < chunk.frames; ++t) {
        const float* row = chunk.values + t * chunk.labels;
        state.reader.read(row, state.frames, state.frame);
        state.values.insert(state.values.end(), row, row + chunk.labels);
        ++state.frames;
        state.search.advance(state.frame);
    }
}

std::vector<Hypothesis> DecoderStream::best() const {
    return make_hypotheses(*implementation_->options, implementation_->line(), implementation_->search);
}

std::vector<Hypothesis> DecoderStream::finish() {
    if (implementation_->finished) throw std::logic_error("the stream is finished already");
    implementation_->finished = true;
    return best();
}

std::size_t DecoderStream::frames() const {
    return implementation_->frames;
}

}  // namespace longhand
