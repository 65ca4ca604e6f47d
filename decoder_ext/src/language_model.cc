#include "longhand_decoder/language_model.h"

#include <cmath>
#include <exception>
#include <utility>

#include "language_model_implementation.h"
#include "lm/enumerate_vocab.hh"
#include "lm/model.hh"
#include "unicode.h"

namespace longhand {

namespace {

const float kNaturalOfTen = std::log(10.0f);

class CollectVocabulary : public lm::EnumerateVocab {
  public:
    void Add(lm::WordIndex index, const StringPiece& text) override {
        words.emplace_back(std::string(text.data(), text.size()), index);
    }
    std::vector<std::pair<std::string, std::uint32_t>> words;
};

std::string one_line(std::string text) {
    for (char& c : text) {
        if (c == '\n' || c == '\r' || c == '\t') c = ' ';
    }
    return text;
}

}  // namespace

NgramLanguageModel::Implementation::Implementation(const std::string& path) : path_(path) {
    CollectVocabulary vocabulary;
    lm::ngram::Config config;
    config.messages = nullptr;
    config.show_progress = false;
    config.enumerate_vocab = &vocabulary;
    config.positive_log_probability = lm::SILENT;
    config.sentence_marker_missing = lm::SILENT;
    config.unknown_missing = lm::SILENT;
    try {
        model_.reset(lm::ngram::LoadVirtual(path.c_str(), config));
    } catch (const std::exception& problem) {
        throw LanguageModelError("cannot load the language model " + path + ": " + one_line(problem.what()));
    }
    std::vector<std::pair<std::u32string, std::uint32_t>> words;
    words.reserve(vocabulary.words.size());
    for (const auto& [text, number] : vocabulary.words) {
        if (text == "<unk>" || text == "<s>" || text == "</s>") continue;
        try {
            words.emplace_back(decode_utf8(text, "a word of its vocabulary"), number);
        } catch (const std::invalid_argument& problem) {
            throw LanguageModelError("cannot use the language model " + path + ": " + problem.what());
        }
    }
    lexicon_ = Lexicon(std::move(words));
}

float NgramLanguageModel::Implementation::score(const lm::ngram::State& in, std::uint32_t word,
                                                lm::ngram::State& out) const {
    return kNaturalOfTen * model_->BaseScore(&in, word, &out);
}

lm::ngram::State NgramLanguageModel::Implementation::start(bool bos) const {
    lm::ngram::State state{};
    if (bos) {
        model_->BeginSentenceWrite(&state);
    } else {
        model_->NullContextWrite(&state);
    }
    return state;
}

NgramLanguageModel::NgramLanguageModel(const std::string& path)
    : implementation_(std::make_unique<const Implementation>(path)) {}

NgramLanguageModel::~NgramLanguageModel() = default;

double NgramLanguageModel::score(const std::vector<std::string>& tokens, bool bos, bool eos) const {
    lm::ngram::State state = implementation_->start(bos), next{};
    double total = 0.0;
    for (const std::string& token : tokens) {
        total += implementation_->score(state, implementation_->index(token), next);
        state = next;
    }
    if (eos) total += implementation_->score(state, implementation_->end_of_sentence(), next);
    return total;
}

bool NgramLanguageModel::contains(const std::string& token) const {
    return implementation_->index(token) != implementation_->unknown();
}

int NgramLanguageModel::order() const {
    return implementation_->order();
}

std::size_t NgramLanguageModel::vocabulary_size() const {
    return implementation_->lexicon().size();
}

const std::string& NgramLanguageModel::path() const {
    return implementation_->path();
}

namespace {
constexpr std::size_t kFirstArcs = std::size_t{1} << 14;
}

ModelAutomaton::ModelAutomaton(const NgramLanguageModel::Implementation& model) : model_(model) {
    clear();
}

void ModelAutomaton::clear() {
    arcs_.assign(kFirstArcs, Entry{kEmpty, {}});
    mask_ = kFirstArcs - 1;
    used_ = 0;
    states_.clear();
    numbers_.clear();
}

void ModelAutomaton::trim(std::size_t limit) {
    if (used_ > limit) clear();
}

std::uint32_t ModelAutomaton::state(const lm::ngram::State& state) {
    const auto [found, fresh] = numbers_.try_emplace(state, static_cast<std::uint32_t>(states_.size()));
    if (fresh) states_.push_back(state);
    return found->second;
}

ModelAutomaton::Arc ModelAutomaton::add(std::uint64_t key) {
    if (2 * (used_ + 1) > arcs_.size()) grow();
    lm::ngram::State out{};
    const auto from = static_cast<std::uint32_t>(key >> 32);
    const float score = model_.score(states_[from], static_cast<std::uint32_t>(key), out);
    const Arc arc{score, state(out)};
    std::size_t i = slot(key);
    while (arcs_[i].key != kEmpty) i = (i + 1) & mask_;
    arcs_[i] = {key, arc};
    ++used_;
    return arc;
}

void ModelAutomaton::grow() {
    std::vector<Entry> old(arcs_.size() * 2, Entry{kEmpty, {}});
    old.swap(arcs_);
    mask_ = arcs_.size() - 1;
    for (const Entry& entry : old) {
        if (entry.key == kEmpty) continue;
        std::size_t i = slot(entry.key);
        while (arcs_[i].key != kEmpty) i = (i + 1) & mask_;
        arcs_[i] = entry;
    }
}

}  // namespace longhand
