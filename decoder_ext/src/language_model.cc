#include "longhand_decoder/language_model.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "language_model_implementation.h"
#include "lm/binary_format.hh"
#include "lm/enumerate_vocab.hh"
#include "lm/model.hh"
#include "unicode.h"

namespace longhand {

namespace {

const float kNaturalOfTen = std::log(10.0f);
// What a probability of 0 counts as, natural log. Infinities and what comes of them would take all others
// along in sums and comparisons.
constexpr float kLeastScore = -1e4f;

class CollectVocabulary : public lm::EnumerateVocab {
  public:
    void Add(lm::WordIndex index, const StringPiece& text) override {
        words.append(text.data(), text.size());
        ends.emplace_back(words.size(), index);
    }
    std::string words;  // one behind the other
    std::vector<std::pair<std::size_t, std::uint32_t>> ends;
};

// KenLM's message without the place in its source where it was thrown, on one line. They read
// "FILE:LINE in FUNCTION threw TYPE because `CONDITION'. WHAT IS WRONG" or "... threw TYPE. WHAT IS WRONG".
std::string plain_message(std::string text) {
    for (char& c : text) {
        if (c == '\n' || c == '\r' || c == '\t') c = ' ';
    }
    const std::size_t thrown = text.find(" threw ");
    if (thrown != std::string::npos) {
        const std::size_t condition = text.find(" because `", thrown);
        const char* separator = condition == std::string::npos ? ". " : "'. ";
        const std::size_t end = text.find(separator, condition == std::string::npos ? thrown : condition);
        if (end != std::string::npos) text.erase(0, text.find(' ', end) + 1);
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
}

// KenLM makes room for as many n-grams as the head of a text promises before it reads one, and takes -1 for
// 2^64 - 1. This refuses more than there can be; whatever else is wrong KenLM says itself.
void check_text_header(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto size = static_cast<std::uint64_t>(std::max<std::streamoff>(file.tellg(), 0));
    file.seekg(0);
    std::string start(std::min(size, std::uint64_t{1} << 16), '\0');
    file.read(start.data(), static_cast<std::streamsize>(start.size()));
    std::istringstream lines(start);
    std::string line;
    while (std::getline(lines, line) && line.rfind("\\data\\", 0) != 0) {
        if (line.find_first_not_of(" \t\r") != std::string::npos && line.front() != '#') return;
    }
    while (std::getline(lines, line) && line.rfind("ngram ", 0) == 0) {
        const std::size_t equals = line.find('=');
        if (equals == std::string::npos) return;
        const std::string count = line.substr(equals + 1);
        if (count.find('-') != std::string::npos || std::strtoull(count.c_str(), nullptr, 10) > size)
            throw std::runtime_error("'" + line + "' cannot be: the file has " + std::to_string(size) +
                                     " bytes");
    }
}

// KenLM maps a binary file and believes what stands in it. This refuses numbers in its header that cannot be
// right, before they become addresses. The rest of the file is trusted: whoever fetches models checks their
// hashes.
void check_binary_header(const std::string& path) {
    constexpr char kMagic[] = "mmap lm http://kheafield.com/code format version 5\n";
    constexpr std::size_t kTestNumbers = 32;  // floats and integers that KenLM itself compares
    constexpr std::size_t kHeader = (sizeof(kMagic) + 1 + 7) / 8 * 8 + kTestNumbers;
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto size = static_cast<std::uint64_t>(std::max<std::streamoff>(file.tellg(), 0));
    char magic[sizeof(kMagic)] = {};
    file.seekg(0);
    if (!file.read(magic, sizeof(kMagic) - 1) || std::memcmp(magic, kMagic, sizeof(kMagic) - 1) != 0) return;
    // The fields of lm::ngram::FixedWidthParameters, read as bytes: a damaged file may hold no valid bool or
    // enum.
    using Fixed = lm::ngram::FixedWidthParameters;
    unsigned char fixed[sizeof(Fixed)];
    file.seekg(kHeader);
    if (!file.read(reinterpret_cast<char*>(fixed), sizeof(fixed)))
        throw std::runtime_error("the file is cut short");
    float multiplier;
    std::uint32_t type;
    std::memcpy(&multiplier, fixed + offsetof(Fixed, probing_multiplier), sizeof(multiplier));
    std::memcpy(&type, fixed + offsetof(Fixed, model_type), sizeof(type));
    const unsigned order = fixed[offsetof(Fixed, order)];
    const auto refuse = [](const std::string& what) {
        throw std::runtime_error("its header is damaged: " + what);
    };
    if (order < 2 || order > KENLM_MAX_ORDER)
        refuse("order " + std::to_string(order) + ", needed 2 to " + std::to_string(KENLM_MAX_ORDER));
    if (!(multiplier >= 1.0f && multiplier <= 100.0f))
        refuse("probing multiplier " + std::to_string(multiplier));
    if (type > 5) refuse("model type " + std::to_string(type));
    if (fixed[offsetof(Fixed, has_vocabulary)] > 1) refuse("no yes or no about the vocabulary");
    std::vector<std::uint64_t> counts(order);
    const auto read = [&file](void* to, std::size_t bytes) {
        if (!file.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes))) {
            throw std::runtime_error("the file is cut short");
        }
    };
    read(counts.data(), sizeof(std::uint64_t) * order);
    for (const std::uint64_t count : counts) {
        if (count > size * 8)
            refuse(std::to_string(count) + " n-grams in " + std::to_string(size) + " bytes");
    }
    const std::size_t body = (kHeader + sizeof(Fixed) + sizeof(std::uint64_t) * order + 7) / 8 * 8;
    if (type < lm::ngram::TRIE) {
        // Hash tables that are not where KenLM looks for them may have no free place, and then its search
        // never ends.
        lm::ngram::Config config;
        config.probing_multiplier = multiplier;
        const std::uint64_t tables = type == lm::ngram::PROBING
                                         ? lm::ngram::ProbingModel::Size(counts, config)
                                         : lm::ngram::RestProbingModel::Size(counts, config);
        char first_word[6] = {};
        file.seekg(static_cast<std::streamoff>(body + tables));
        read(first_word, sizeof(first_word));
        if (std::memcmp(first_word, "<unk>", 6) != 0) refuse("the vocabulary is not where it should be");
        return;
    }
    std::uint64_t words = 0;
    file.seekg(static_cast<std::streamoff>(body));
    read(&words, sizeof(words));
    if (words > counts[0]) refuse(std::to_string(words) + " words in the vocabulary");
    // The search for a word interpolates between these hashes: out of order they lead it out of the file.
    std::vector<std::uint64_t> hashes(words);
    read(hashes.data(), sizeof(std::uint64_t) * words);
    if (!std::is_sorted(hashes.begin(), hashes.end())) throw std::runtime_error("its vocabulary is damaged");
}

// An error whose message is valid UTF-8, whatever a damaged file or an odd path had in it.
LanguageModelError load_error(const std::string& path, std::string reason) {
    std::string message = "cannot load the language model " + path + ": " + std::move(reason);
    try {
        decode_utf8(message, "message");
    } catch (const std::invalid_argument&) {
        for (char& c : message) {
            if (static_cast<unsigned char>(c) >= 0x80) c = '?';
        }
    }
    return LanguageModelError(message);
}

}  // namespace

NgramLanguageModel::Implementation::Implementation(const std::string& path, bool mapped) : path_(path) {
    CollectVocabulary vocabulary;
    lm::ngram::Config config;
    config.messages = nullptr;
    if (!mapped) config.load_method = util::READ;
    config.show_progress = false;
    config.enumerate_vocab = &vocabulary;
    config.positive_log_probability = lm::SILENT;
    config.sentence_marker_missing = lm::SILENT;
    config.unknown_missing = lm::SILENT;
    try {
        // A pipe would keep whoever opens it waiting.
        std::error_code unknown;
        if (std::filesystem::exists(path, unknown) && !std::filesystem::is_regular_file(path, unknown))
            throw std::runtime_error("it is no regular file");
        check_text_header(path);
        check_binary_header(path);
        model_.reset(lm::ngram::LoadVirtual(path.c_str(), config));
    } catch (const std::exception& problem) {
        throw load_error(path, plain_message(problem.what()));
    }
    words_.text.reserve(vocabulary.words.size());
    words_.words.reserve(vocabulary.ends.size());
    std::size_t begin = 0;
    for (const auto& [end, number] : vocabulary.ends) {
        const std::string_view text = std::string_view(vocabulary.words).substr(begin, end - begin);
        begin = end;
        if (index(text) != number) {
            throw load_error(path, "its vocabulary is damaged or has a word twice: '" + std::string(text) +
                                       "' is not the word of number " + std::to_string(number));
        }
        if (text == "<unk>" || text == "<s>" || text == "</s>") continue;
        try {
            words_.add(decode_utf8(text, "a word of its vocabulary"), number);
        } catch (const std::invalid_argument& problem) {
            throw load_error(path, problem.what());
        }
    }
    vocabulary_size_ = words_.words.size();
}

const Lexicon& NgramLanguageModel::Implementation::lexicon() const {
    std::call_once(lexicon_once_, [this] {
        lexicon_ = Lexicon(words_);
        words_ = WordList{};
    });
    return lexicon_;
}

float NgramLanguageModel::Implementation::score(const lm::ngram::State& in, std::uint32_t word,
                                                lm::ngram::State& out) const {
    const float score = kNaturalOfTen * model_->BaseScore(&in, word, &out);
    return score > kLeastScore ? std::min(score, -kLeastScore) : kLeastScore;
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

NgramLanguageModel::NgramLanguageModel(const std::string& path, bool mapped)
    : implementation_(std::make_unique<const Implementation>(path, mapped)) {}

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
    return implementation_->vocabulary_size();
}

const std::string& NgramLanguageModel::path() const {
    return implementation_->path();
}

namespace {
constexpr std::size_t kFirstTableSize = std::size_t{1} << 12;
}

ModelAutomaton::ModelAutomaton(const NgramLanguageModel::Implementation& model) : model_(model) {
    clear();
}

void ModelAutomaton::clear() {
    arcs_.assign(kFirstTableSize, Arc{});
    arc_mask_ = kFirstTableSize - 1;
    arc_count_ = 0;
    states_.clear();
    state_table_.assign(kFirstTableSize, kUnknown);
}

void ModelAutomaton::trim(std::size_t limit) {
    if (arc_count_ > limit) clear();
}

std::size_t ModelAutomaton::hash(const lm::ngram::State& state) {
    std::uint64_t value = state.length;
    for (unsigned char i = 0; i < state.length; ++i) value = (value ^ state.words[i]) * kHashMultiplier;
    return value >> 24;
}

std::uint32_t ModelAutomaton::intern(const lm::ngram::State& state) {
    if (2 * (states_.size() + 1) > state_table_.size()) grow_states();
    const std::size_t mask = state_table_.size() - 1;
    std::size_t i = hash(state) & mask;
    for (; state_table_[i] != kUnknown; i = (i + 1) & mask) {
        if (states_[state_table_[i]] == state) return state_table_[i];
    }
    state_table_[i] = static_cast<std::uint32_t>(states_.size());
    states_.push_back(state);
    return state_table_[i];
}

ModelAutomaton::Arc& ModelAutomaton::empty_slot(std::uint64_t key) {
    std::size_t i = slot(key);
    while (arcs_[i].key != kEmpty) i = (i + 1) & arc_mask_;
    return arcs_[i];
}

ModelAutomaton::Arc& ModelAutomaton::add(std::uint64_t key, bool follows) {
    if (2 * (arc_count_ + 1) > arcs_.size()) grow_arcs();
    ++arc_count_;
    lm::ngram::State next;
    Arc& fresh = empty_slot(key);
    fresh.key = key;
    fresh.score = model_.score(states_[key >> 32], static_cast<std::uint32_t>(key), next);
    if (follows) fresh.target = intern(next);
    return fresh;
}

void ModelAutomaton::follow(Arc& arc) {
    lm::ngram::State next;
    model_.score(states_[arc.key >> 32], static_cast<std::uint32_t>(arc.key), next);
    arc.target = intern(next);
}

void ModelAutomaton::grow_arcs() {
    std::vector<Arc> old(arcs_.size() * 2);
    old.swap(arcs_);
    arc_mask_ = arcs_.size() - 1;
    for (const Arc& arc : old) {
        if (arc.key != kEmpty) empty_slot(arc.key) = arc;
    }
}

void ModelAutomaton::grow_states() {
    state_table_.assign(state_table_.size() * 2, kUnknown);
    const std::size_t mask = state_table_.size() - 1;
    for (std::uint32_t number = 0; number < states_.size(); ++number) {
        std::size_t i = hash(states_[number]) & mask;
        while (state_table_[i] != kUnknown) i = (i + 1) & mask;
        state_table_[i] = number;
    }
}

}  // namespace longhand
