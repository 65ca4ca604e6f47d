#include "model.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>
#include <stdexcept>
#include <unordered_map>
#include <utility>

namespace longhand {

namespace {

// How much less likely a small letter is made in a line in capitals, natural log. To the models it looks like
// a capital there, which they want at the beginning of a name.
constexpr float kSmallLetterShift = 3.0f;

// Text as a line in capitals shows it to the models.
std::string in_small_letters(const std::string& text, const char* what) {
    std::string small;
    for (const char32_t code : decode_utf8(text, what))
        append_utf8(is_capital(code) ? other_case(code) : code, small);
    return small;
}

std::vector<Hotword> in_small_letters(std::vector<Hotword> hotwords) {
    for (Hotword& hotword : hotwords) hotword.text = in_small_letters(hotword.text, "a hotword");
    return hotwords;
}

std::string number(double value) {
    std::ostringstream text;
    text << std::setprecision(10) << value;
    return text.str();
}

[[noreturn]] void refuse(const std::string& field, const std::string& needed, double got) {
    throw std::invalid_argument(field + " must be " + needed + ", got " + number(got));
}

void require_between(const std::string& field, double least, double most, double value) {
    if (!(value >= least && value <= most))
        refuse(field, "between " + number(least) + " and " + number(most), value);
}

// Sums of larger ones may leave the range of a number.
void require_weight(const char* field, double value) {
    require_between(field, 0, BeamSearchOptions::kLargestWeight, value);
}

void require_bonus(const std::string& field, double value) {
    require_between(field, -BeamSearchOptions::kLargestWeight, BeamSearchOptions::kLargestWeight, value);
}

void require_at_least(const char* field, int least, int value) {
    if (value < least) refuse(field, "at least " + number(least), value);
}

void require_threshold(const char* field, double value) {
    if (!(value <= 0)) refuse(field, "0 or less (a logarithm)", value);
}

}  // namespace

void validate(const BeamSearchOptions& options) {
    require_at_least("beam_width", 1, options.beam_width);
    if (options.beam_width > 1000000) refuse("beam_width", "at most 1000000", options.beam_width);
    require_threshold("beam_threshold", options.beam_threshold);
    require_threshold("token_threshold", options.token_threshold);
    require_at_least("max_tokens_per_frame", 0, options.max_tokens_per_frame);
    require_between("temperature", 1e-3, 1e3, options.temperature);
    require_weight("prior_weight", options.prior_weight);
    require_weight("word_weight", options.word_weight);
    require_bonus("word_bonus", options.word_bonus);
    require_weight("unknown_word_penalty", options.unknown_word_penalty);
    if (options.open_unknown_penalty) require_weight("open_unknown_penalty", *options.open_unknown_penalty);
    require_weight("character_weight", options.character_weight);
    require_bonus("character_bonus", options.character_bonus);
    require_between("figures_weight", 0, 1, options.figures_weight);
    for (const Hotword& hotword : options.hotwords)
        require_bonus("the boost of hotword '" + hotword.text + "'", hotword.boost);
    require_at_least("alternatives", 1, options.alternatives);
    require_weight("confidence_scale", options.confidence_scale);
    if (options.confidence_scale == 0) refuse("confidence_scale", "above 0", options.confidence_scale);
}

LabelSet::LabelSet(const std::vector<std::string>& labels, LetterCase letter_case) : names_(labels) {
    if (labels.empty()) throw std::invalid_argument("labels is empty; it needs at least the blank, \"\"");
    if (labels.size() > 65535) {
        throw std::invalid_argument("labels has " + std::to_string(labels.size()) +
                                    " entries, at most 65535 work");
    }
    bool found_blank = false;
    std::unordered_map<char32_t, std::size_t> seen;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const std::u32string text = decode_utf8(labels[i], "a label");
        const std::string where = "labels[" + std::to_string(i) + "]";
        if (text.size() > 1) throw std::invalid_argument(where + " '" + labels[i] + "' is not one character");
        if (text.empty()) {
            if (found_blank) throw std::invalid_argument(where + " is a second blank (an empty label)");
            found_blank = true;
            blank_ = static_cast<std::uint32_t>(i);
        }
        const char32_t code = text.empty() ? 0 : text.front();
        if (!text.empty()) {
            if (code == 0) throw std::invalid_argument(where + " is the character 0");
            const auto [other, fresh] = seen.try_emplace(code, i);
            if (!fresh) {
                throw std::invalid_argument(where + " '" + labels[i] + "' stands at labels[" +
                                            std::to_string(other->second) + "] already");
            }
        }
        code_points_.push_back(letter_case == LetterCase::kOther ? other_case(code) : code);
        const bool capital = longhand::is_capital(code);
        const bool cased = capital || other_case(code) != code;
        written_.push_back(capital ? Written::kCapital : cased ? Written::kSmall : Written::kNeither);
        classes_.push_back(longhand::character_class(code));
        by_spaces_.push_back(longhand::character_class(code, WordSplitting::kSpaces));
    }
    code_points_.push_back(0);
    if (!found_blank)
        throw std::invalid_argument("labels has no blank: one entry must be the empty string \"\"");
}

DecoderModel::DecoderModel(DecoderConfig given, LetterCase wanted)
    : config(std::move(given)), letter_case(wanted), labels(config.labels, wanted) {
    validate(config.options);
    require_at_least("threads", 1, config.threads);
    if (config.threads > 1024) refuse("threads", "at most 1024", config.threads);
    const auto* words = word_model();
    if (!config.lexicon.empty()) {
        WordList entries;
        for (std::size_t i = 0; i < config.lexicon.size(); ++i) {
            const std::string& word = config.lexicon[i];
            const std::u32string text = decode_utf8(word, "a word of the lexicon");
            const bool has_space = std::any_of(text.begin(), text.end(), [](char32_t code) {
                return longhand::character_class(code) == CharacterClass::kSpace;
            });
            if (text.empty() || has_space) {
                throw std::invalid_argument("lexicon[" + std::to_string(i) + "] '" + word +
                                            "' is empty or has white space in it; each entry is one word");
            }
            if (split_word == nullptr && tokenize_words(word).size() != 1) split_word = &word;
            entries.add(text, words ? words->index(word) : 0);
        }
        own_lexicon_ = Lexicon(std::move(entries));
        lexicon = &own_lexicon_;
    } else if (words) {
        lexicon = &words->lexicon();
    }
    for (std::uint32_t label = 0; label < labels.size(); ++label) {
        std::string name;
        if (label != labels.blank()) append_utf8(labels.code_point(label), name);
        const bool space = longhand::character_class(labels.code_point(label)) == CharacterClass::kSpace;
        character_tokens.push_back(character_model() ? character_model()->index(space ? kSpaceToken : name)
                                                     : 0);
        if (!lexicon) continue;
        symbols.push_back(lexicon->symbol(labels.code_point(label)));
        single_tokens.push_back(lexicon->word(lexicon->step(Lexicon::kRoot, symbols.back())));
    }
    if (!config.label_priors.empty()) read_priors();
}

void DecoderModel::read_priors() {
    // What was never or hardly ever said: its share is a guess, and must not lift it without bound.
    constexpr double kLeastShare = 1e-5;
    const std::vector<double>& priors = config.label_priors;
    if (priors.size() != labels.size()) {
        throw std::invalid_argument("label_priors has " + std::to_string(priors.size()) +
                                    " entries, but there are " + std::to_string(labels.size()) + " labels");
    }
    double sum = 0.0;
    for (std::size_t label = 0; label < priors.size(); ++label) {
        if (!std::isfinite(priors[label]) || priors[label] < 0) {
            refuse("label_priors[" + std::to_string(label) + "]", "a finite number, at least 0",
                   priors[label]);
        }
        if (label != labels.blank()) sum += priors[label];
    }
    if (!(sum > 0) || !std::isfinite(sum)) {
        throw std::invalid_argument("label_priors has no usable number above 0 besides the blank's");
    }
    double mean = 0.0;
    for (const double prior : priors) log_priors.push_back(std::log(std::max(prior / sum, kLeastShare)));
    for (std::size_t label = 0; label < priors.size(); ++label) {
        if (label != labels.blank()) mean += priors[label] / sum * log_priors[label];
    }
    for (float& prior : log_priors) prior -= static_cast<float>(mean);
    log_priors[labels.blank()] = 0.0f;
    if (letter_case == LetterCase::kAsWritten) return;
    // Where the models are asked for another letter, that letter's frequency is what they would count again.
    const LabelSet written(labels.names());
    std::unordered_map<char32_t, float> of_letter;
    for (std::uint32_t label = 0; label < labels.size(); ++label)
        of_letter[written.code_point(label)] = log_priors[label];
    for (std::uint32_t label = 0; label < labels.size(); ++label) {
        const auto found = of_letter.find(labels.code_point(label));
        if (found != of_letter.end()) log_priors[label] = found->second;
    }
}

PreparedOptions::PreparedOptions(const DecoderModel& decoder, const BeamSearchOptions& given)
    : options(given),
      model(&decoder),
      hotwords(decoder.letter_case == LetterCase::kOther ? in_small_letters(given.hotwords) : given.hotwords,
               given.word_splitting) {
    validate(options);
    for (std::uint32_t label = 0; label < decoder.labels.size(); ++label) {
        classes.push_back(decoder.labels.character_class(label, options.word_splitting));
        if (!hotwords.empty())
            hotword_symbols.push_back(hotwords.lexicon().symbol(decoder.labels.code_point(label)));
    }
    classes.push_back(CharacterClass::kSpace);
    if (options.restrict_characters) {
        const std::u32string characters = decode_utf8(options.allowed_characters, "allowed_characters");
        for (const std::string& name : decoder.labels.names()) {
            const std::u32string code = decode_utf8(name, "a label");
            allowed.push_back(code.empty() || characters.find(code.front()) != std::u32string::npos);
        }
    }
    if (options.closed_lexicon && !decoder.lexicon) {
        throw std::invalid_argument(
            "closed_lexicon needs a word model or a lexicon, and the decoder has neither");
    }
    if (options.closed_lexicon && options.word_splitting == WordSplitting::kLetters) {
        if (decoder.split_word != nullptr) {
            throw std::invalid_argument("closed_lexicon: '" + *decoder.split_word +
                                        "' of the lexicon is no single word where words end between letters, "
                                        "digits and punctuation; word_splitting='spaces' reads it");
        }
    }
    const bool words_count = options.word_weight > 0 || options.word_bonus != 0 ||
                             options.unknown_word_penalty > 0 || options.closed_lexicon;
    uses_words = decoder.lexicon != nullptr && words_count;
    uses_characters = decoder.character_model() != nullptr && options.character_weight > 0;
    const bool models_count = uses_words || uses_characters || !options.hotwords.empty();
    folds = options.fold_capitals && models_count && !options.closed_lexicon;
    read_shift();
    read_context();
}

const PreparedOptions& PreparedOptions::for_capitals(const DecoderModel& folded) const {
    std::call_once(folded_once_, [&] { folded_ = std::make_unique<const PreparedOptions>(folded, options); });
    return *folded_;
}

void PreparedOptions::read_shift() {
    const std::vector<float>& priors = model->log_priors;
    const bool without_priors = !priors.empty() && options.prior_weight > 0 && uses_characters;
    const bool in_capitals = model->letter_case == LetterCase::kOther;
    if (!without_priors && !in_capitals) return;
    const double power = without_priors ? options.prior_weight * options.character_weight : 0.0;
    for (std::uint32_t label = 0; label < model->labels.size(); ++label) {
        const double prior = without_priors ? priors[label] : 0.0;
        const double counts = classes[label] == CharacterClass::kDigit ? options.figures_weight : 1.0;
        shift.push_back(static_cast<float>(counts * power * options.temperature * prior));
        if (in_capitals && model->labels.is_small(label)) shift.back() += kSmallLetterShift;
    }
}

void PreparedOptions::read_context() {
    if (model->letter_case == LetterCase::kOther)
        options.context = in_small_letters(options.context, "context");
    lm::ngram::State next{};
    if (const auto* words = model->word_model()) {
        word_start = words->start(options.sentence_start);
        for (const std::string& token : tokenize_words(options.context, options.word_splitting)) {
            words->score(word_start, words->index(token), next);
            word_start = next;
        }
    }
    if (const auto* characters = model->character_model()) {
        character_start = characters->start(options.sentence_start);
        std::u32string context = decode_utf8(options.context, "context");
        // The end of the line before stands for a space, whether it is known or not: this line begins with a
        // word. Without that a model knows nothing of what stands before, which is no place in any text.
        if (context.empty() ? !options.sentence_start
                            : character_class(context.back()) != CharacterClass::kSpace)
            context.push_back(U' ');
        for (const char32_t code : context) {
            std::string token;
            append_utf8(code, token);
            if (character_class(code) == CharacterClass::kSpace) token = kSpaceToken;
            characters->score(character_start, characters->index(token), next);
            character_start = next;
        }
    }
}

}  // namespace longhand
