#include "results.h"

#include <algorithm>
#include <cmath>

#include "alignment.h"
#include "confidence.h"

namespace longhand {

namespace {

bool is_space(const PreparedOptions& options, std::uint32_t label) {
    return options.classes[label] == CharacterClass::kSpace;
}

std::string text_of(const PreparedOptions& options, const std::vector<std::uint32_t>& labels) {
    std::string text;
    for (const std::uint32_t label : labels) text += options.model->labels.names()[label];
    return text;
}

// The words of a hypothesis whose characters are known, with their confidences.
std::vector<Span> make_words(const std::vector<Span>& characters, const std::vector<WordRange>& ranges,
                             const std::vector<double>& confidences) {
    std::vector<Span> words;
    for (std::size_t i = 0; i < ranges.size(); ++i) {
        Span word{"", characters[ranges[i].begin].first_frame, characters[ranges[i].end - 1].last_frame,
                  confidences[i]};
        for (std::size_t c = ranges[i].begin; c < ranges[i].end; ++c) word.text += characters[c].text;
        words.push_back(std::move(word));
    }
    return words;
}

std::vector<bool> space_marks(const PreparedOptions& options, const std::vector<std::uint32_t>& labels) {
    std::vector<bool> spaces;
    for (const std::uint32_t label : labels) spaces.push_back(is_space(options, label));
    return spaces;
}

Hypothesis make_hypothesis(const PreparedOptions& options, const LogProbs& line, const FinalPrefix& prefix,
                           const std::vector<std::uint32_t>& labels, const Support& support,
                           double confidence) {
    Hypothesis out;
    out.text = text_of(options, labels);
    out.score = prefix.score();
    out.acoustic_score = prefix.acoustic;
    out.word_model_score = prefix.state.word_score;
    out.character_model_score = prefix.state.character_score;
    out.confidence = confidence;
    const std::vector<FrameRange> frames = align(line, options.model->labels.blank(), labels);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        out.characters.push_back({options.model->labels.names()[labels[i]], frames[i].first, frames[i].last,
                                  support.characters[i]});
    }
    out.words = make_words(out.characters, support.word_ranges, support.words);
    return out;
}

// What a closed lexicon leaves when every prefix in the beam ends within a word: the empty text.
Hypothesis empty_hypothesis(const PreparedOptions& options, const LogProbs& line) {
    Hypothesis out;
    FrameReader reader(options, Purpose::kScores);
    Frame frame;
    for (std::size_t t = 0; t < line.frames; ++t) {
        reader.read(line.values + t * line.labels, t, frame);
        out.acoustic_score += std::log(frame.probabilities[options.model->labels.blank()]) + frame.log_scale;
    }
    out.score = out.acoustic_score;
    return out;
}

}  // namespace

std::vector<Hypothesis> make_hypotheses(const PreparedOptions& options, const LogProbs& line,
                                        BeamSearch& search) {
    const std::vector<FinalPrefix> finals = search.finish();
    std::vector<Hypothesis> out;
    if (finals.empty()) {
        out.push_back(empty_hypothesis(options, line));
        return out;
    }
    const std::vector<double> shares = beam_shares(finals, options.options.confidence_scale);
    std::vector<std::vector<std::uint32_t>> texts;
    std::vector<std::vector<bool>> spaces;
    for (const FinalPrefix& prefix : finals) {
        texts.push_back(labels_to(search.tree(), prefix.node));
        spaces.push_back(space_marks(options, texts.back()));
    }
    const std::size_t count = std::min(finals.size(), static_cast<std::size_t>(options.options.alternatives));
    for (std::size_t i = 0; i < count; ++i) {
        const Support support = options.options.span_confidences
                                    ? support_of(i, texts, spaces, shares)
                                    : Support{std::vector<double>(texts[i].size()), word_ranges(spaces[i]),
                                              std::vector<double>(texts[i].size())};
        out.push_back(make_hypothesis(options, line, finals[i], texts[i], support, shares[i]));
    }
    return out;
}

std::string best_text(const PreparedOptions& options, BeamSearch& search) {
    const std::optional<FinalPrefix> best = search.finish_best();
    return best ? text_of(options, labels_to(search.tree(), best->node)) : "";
}

Hypothesis greedy_hypothesis(const PreparedOptions& options, const LogProbs& line) {
    Hypothesis out;
    FrameReader reader(options, Purpose::kScores);
    const std::uint32_t blank = options.model->labels.blank();
    std::uint32_t previous = blank;
    std::vector<std::uint32_t> labels;
    for (std::size_t t = 0; t < line.frames; ++t) {
        const FrameReader::Best best = reader.read_best(line.values + t * line.labels, t);
        out.acoustic_score += best.log_probability;
        if (best.label != blank) {
            const double probability = std::min(1.0, std::exp(best.log_probability));
            const int frame = static_cast<int>(t);
            if (best.label != previous) {
                out.characters.push_back(
                    {options.model->labels.names()[best.label], frame, frame, probability});
                labels.push_back(best.label);
            } else {
                Span& last = out.characters.back();
                last.last_frame = frame;
                last.confidence = std::max(last.confidence, probability);
            }
        }
        previous = best.label;
    }
    out.score = out.acoustic_score;
    out.text = text_of(options, labels);
    out.confidence = 1.0;
    for (const Span& character : out.characters) out.confidence *= character.confidence;
    const std::vector<WordRange> ranges = word_ranges(space_marks(options, labels));
    std::vector<double> confidences(ranges.size(), 1.0);
    for (std::size_t i = 0; i < ranges.size(); ++i) {
        for (std::size_t c = ranges[i].begin; c < ranges[i].end; ++c)
            confidences[i] *= out.characters[c].confidence;
    }
    out.words = make_words(out.characters, ranges, confidences);
    return out;
}

}  // namespace longhand
