#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"

namespace py = pybind11;

namespace longhand::python {

namespace {

using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;

// The array as contiguous float32, copied only if it is not that already.
Array read_array(const py::handle& object) {
    if (!py::isinstance<py::array>(object)) {
        throw py::type_error("log_probs must be a numpy array of shape (frames, labels), got " +
                             std::string(py::str(py::type::of(object).attr("__name__"))));
    }
    const auto given = py::reinterpret_borrow<py::array>(object);
    if (given.dtype().kind() != 'f') {
        throw std::invalid_argument("log_probs must hold floating point numbers, got dtype " +
                                    std::string(py::str(given.dtype())));
    }
    if (given.ndim() != 2) {
        throw std::invalid_argument("log_probs must have the shape (frames, labels), got " +
                                    std::string(py::str(given.attr("shape"))));
    }
    Array array = Array::ensure(given);
    if (!array) throw py::error_already_set();
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(float) != 0)
        array = Array(array.attr("copy")());
    return array;
}

LogProbs view(const Array& array) {
    return {array.data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1))};
}

// Says why `value` is no T.
template <class T>
[[noreturn]] void refuse(const py::handle& value, const std::string& field) {
    constexpr const char* kNeeded = std::is_same_v<T, bool>       ? "True or False"
                                    : std::is_integral_v<T>       ? "a whole number"
                                    : std::is_floating_point_v<T> ? "a number"
                                                                  : "a string";
    const std::string got = ", got " + py::repr(value).cast<std::string>();
    if (std::is_same_v<T, std::string> && py::isinstance<py::str>(value))
        throw std::invalid_argument(field + " must be text that UTF-8 can write" + got);
    const auto whole = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    PyErr_Clear();
    if (std::is_arithmetic_v<T> && !std::is_same_v<T, bool> && whole)
        throw std::invalid_argument(field + " is out of range" + got);
    throw py::type_error(field + " must be " + kNeeded + got);
}

// Unlike pybind11's own cast it takes no bytes for a string, and no Decimal("2.9") for a 2.
template <class T>
bool cast_to(const py::handle& value, T& out) {
    if (std::is_same_v<T, std::string> && !py::isinstance<py::str>(value)) return false;
    py::detail::make_caster<T> caster;
    if (!caster.load(value, !std::is_integral_v<T> || std::is_same_v<T, bool>)) return false;
    out = py::detail::cast_op<T>(std::move(caster));
    return true;
}

template <class T>
T cast_field(const py::handle& value, const char* field) {
    T out{};
    if (!cast_to(value, out)) refuse<T>(value, field);
    return out;
}

template <class T>
std::vector<T> cast_list(const py::list& values, const char* field) {
    std::vector<T> out(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!cast_to(values[i], out[i]))
            refuse<T>(values[i], std::string(field) + "[" + std::to_string(i) + "]");
    }
    return out;
}

std::shared_ptr<NgramLanguageModel> cast_model(const py::object& model, const char* field) {
    if (!model.is_none() && !py::isinstance<NgramLanguageModel>(model)) {
        throw py::type_error(std::string(field) + " must be an NgramLanguageModel, got " +
                             py::repr(model).cast<std::string>());
    }
    return model.cast<std::shared_ptr<NgramLanguageModel>>();
}

// Runs without the interpreter's lock.
template <class Work>
auto unlocked(const Work& work) {
    const Unlocked released;
    return work();
}

template <class T>
T choice(const py::object& options, const char* field, const std::vector<std::pair<const char*, T>>& values) {
    const auto got = cast_field<std::string>(options.attr(field), field);
    std::string names;
    for (const auto& [name, value] : values) {
        if (got == name) return value;
        names += (names.empty() ? "'" : " or '") + std::string(name) + "'";
    }
    throw std::invalid_argument(std::string(field) + " must be " + names + ", got '" + got + "'");
}

// From the Python dataclass, whose fields have the same names.
BeamSearchOptions read_options(const py::object& options) {
    BeamSearchOptions out;
    const auto read = [&](const char* name, auto& field) {
        field = cast_field<std::decay_t<decltype(field)>>(options.attr(name), name);
    };
    read("beam_width", out.beam_width);
    read("beam_threshold", out.beam_threshold);
    read("token_threshold", out.token_threshold);
    read("hard_token_threshold", out.hard_token_threshold);
    read("max_tokens_per_frame", out.max_tokens_per_frame);
    read("temperature", out.temperature);
    read("prior_weight", out.prior_weight);
    read("word_weight", out.word_weight);
    read("word_bonus", out.word_bonus);
    read("unknown_word_penalty", out.unknown_word_penalty);
    const py::object open_penalty = options.attr("open_unknown_penalty");
    if (!open_penalty.is_none())
        out.open_unknown_penalty = cast_field<double>(open_penalty, "open_unknown_penalty");
    read("character_weight", out.character_weight);
    read("character_bonus", out.character_bonus);
    read("figures_weight", out.figures_weight);
    read("merge_histories", out.merge_histories);
    read("fold_capitals", out.fold_capitals);
    read("closed_lexicon", out.closed_lexicon);
    read("sentence_start", out.sentence_start);
    read("sentence_end", out.sentence_end);
    read("context", out.context);
    read("alternatives", out.alternatives);
    read("confidence_scale", out.confidence_scale);
    read("span_confidences", out.span_confidences);
    out.input = choice<InputKind>(options, "input",
                                  {{"log_probs", InputKind::kLogProbs}, {"logits", InputKind::kLogits}});
    out.path_merge =
        choice<PathMerge>(options, "path_merge", {{"sum", PathMerge::kSum}, {"max", PathMerge::kMax}});
    out.word_splitting =
        choice<WordSplitting>(options, "word_splitting",
                              {{"letters", WordSplitting::kLetters}, {"spaces", WordSplitting::kSpaces}});
    double boost = 0.0;
    read("hotword_boost", boost);
    for (const py::handle item : options.attr("hotwords")) {
        if (py::isinstance<py::str>(item)) {
            out.hotwords.push_back({cast_field<std::string>(item, "a hotword"), boost});
        } else {  // the class has seen to it that it is a pair
            const auto pair = item.cast<py::sequence>();
            out.hotwords.push_back(
                {cast_field<std::string>(pair[0], "a hotword"), cast_field<double>(pair[1], "a boost")});
        }
    }
    const py::object allowed = options.attr("allowed_characters");
    out.restrict_characters = !allowed.is_none();
    if (out.restrict_characters)
        out.allowed_characters = cast_field<std::string>(allowed, "allowed_characters");
    return out;
}

py::object python_error(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::bad_alloc&) {
        return py::handle(PyExc_MemoryError)();
    } catch (const std::exception& problem) {
        return py::handle(PyExc_ValueError)(problem.what());
    }
}

// One result or one exception for each item.
template <class Decode, class Convert>
py::list decode_items(const py::sequence& log_probs, const Decode& decode, const Convert& convert) {
    py::list results;
    std::vector<Array> arrays;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < log_probs.size(); ++i) {
        results.append(py::none());
        try {
            arrays.push_back(read_array(log_probs[i]));
            places.push_back(i);
        } catch (const py::type_error& problem) {
            results[i] = py::handle(PyExc_TypeError)(problem.what());
        } catch (const std::exception& problem) {
            results[i] = py::handle(PyExc_ValueError)(problem.what());
        }
    }
    std::vector<LogProbs> lines;
    for (const Array& array : arrays) lines.push_back(view(array));
    auto items = unlocked([&] { return decode(lines); });
    for (std::size_t i = 0; i < items.size(); ++i) {
        results[places[i]] = items[i].error ? python_error(items[i].error) : convert(std::move(items[i]));
    }
    return results;
}

using Decoder = CtcBeamSearchDecoder;

// Whether the rows are probabilities where logarithms or logits belong. Those have a negative number early
// on.
bool looks_like_probabilities(const py::object& log_probs) {
    const Array array = read_array(log_probs);
    const float* values = array.data();
    double sum = 0.0;
    for (py::ssize_t i = 0; i < array.size(); ++i) {
        if (!(values[i] >= 0.0f)) return false;
        sum += values[i];
    }
    return array.size() > 0 && std::abs(sum / static_cast<double>(array.shape(0)) - 1.0) < 1e-3;
}

// Opaque to Python.
struct Options {
    std::shared_ptr<const PreparedOptions> prepared;
};

std::shared_ptr<Decoder> make_decoder(const py::list& labels, const py::object& words,
                                      const py::object& characters, const py::list& lexicon,
                                      const py::list& label_priors, const py::object& options,
                                      const py::object& threads) {
    DecoderConfig config{cast_list<std::string>(labels, "labels"),
                         cast_model(words, "word_model"),
                         cast_model(characters, "character_model"),
                         cast_list<std::string>(lexicon, "lexicon"),
                         cast_list<double>(label_priors, "label_priors"),
                         read_options(options),
                         cast_field<int>(threads, "threads")};
    return unlocked([&] { return std::make_shared<Decoder>(std::move(config)); });
}

// The interpreter's lock does not keep threads apart here: it is released while one is at work.
class PyStream {
  public:
    explicit PyStream(std::unique_ptr<DecoderStream> stream) : stream_(std::move(stream)) {}

    template <class Work>
    auto alone(const Work& work) {
        const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
        if (!lock) throw std::runtime_error("the stream is in use by another thread");
        return unlocked([&] { return work(*stream_); });
    }

  private:
    std::unique_ptr<DecoderStream> stream_;
    std::mutex mutex_;
};

void register_stream(py::module_& module) {
    py::class_<PyStream>(module, "DecoderStream")
        .def(
            "push",
            [](PyStream& stream, const py::object& log_probs) {
                const Array array = read_array(log_probs);
                stream.alone([&](DecoderStream& own) { own.push(view(array)); });
            },
            py::arg("log_probs"))
        .def("best",
             [](PyStream& stream) {
                 return to_python(stream.alone([](const DecoderStream& own) { return own.best(); }));
             })
        .def("finish",
             [](PyStream& stream) {
                 return to_python(stream.alone([](DecoderStream& own) { return own.finish(); }));
             })
        .def_property_readonly("frames", [](PyStream& stream) {
            return stream.alone([](const DecoderStream& own) { return own.frames(); });
        });
}

}  // namespace

void register_decoder(py::module_& module) {
    py::class_<Options>(module, "PreparedOptions");
    py::class_<Decoder, std::shared_ptr<Decoder>>(module, "Decoder")
        .def(py::init(&make_decoder), py::arg("labels"), py::arg("word_model"), py::arg("character_model"),
             py::arg("lexicon"), py::arg("label_priors"), py::arg("options"), py::arg("threads"))
        .def(
            "prepare",
            [](const Decoder& decoder, const py::object& options) {
                const BeamSearchOptions read = read_options(options);
                return Options{unlocked([&] { return decoder.prepare(read); })};
            },
            py::arg("options"), py::keep_alive<0, 1>())
        .def(
            "decode",
            [](const Decoder& decoder, const py::object& log_probs, const Options& options) {
                const Array array = read_array(log_probs);
                return to_python(unlocked([&] { return decoder.decode(view(array), *options.prepared); }));
            },
            py::arg("log_probs"), py::arg("options"))
        .def(
            "decode_text",
            [](const Decoder& decoder, const py::object& log_probs, const Options& options) {
                const Array array = read_array(log_probs);
                return unlocked([&] { return decoder.decode_text(view(array), *options.prepared); });
            },
            py::arg("log_probs"), py::arg("options"))
        .def(
            "decode_batch",
            [](const Decoder& decoder, const py::sequence& log_probs, const Options& options) {
                return decode_items(
                    log_probs,
                    [&](const auto& lines) { return decoder.decode_batch(lines, *options.prepared); },
                    [](BatchItem item) -> py::object { return to_python(std::move(item.hypotheses)); });
            },
            py::arg("log_probs"), py::arg("options"))
        .def(
            "decode_text_batch",
            [](const Decoder& decoder, const py::sequence& log_probs, const Options& options) {
                return decode_items(
                    log_probs,
                    [&](const auto& lines) { return decoder.decode_text_batch(lines, *options.prepared); },
                    [](TextItem item) -> py::object { return py::str(item.text); });
            },
            py::arg("log_probs"), py::arg("options"))
        .def(
            "decode_greedy",
            [](const Decoder& decoder, const py::object& log_probs, const Options& options) {
                const Array array = read_array(log_probs);
                return to_python(
                    unlocked([&] { return decoder.decode_greedy(view(array), *options.prepared); }));
            },
            py::arg("log_probs"), py::arg("options"))
        .def(
            "decode_greedy_batch",
            [](const Decoder& decoder, const py::sequence& log_probs, const Options& options) {
                return decode_items(
                    log_probs,
                    [&](const auto& lines) { return decoder.decode_greedy_batch(lines, *options.prepared); },
                    [](BatchItem item) -> py::object { return to_python(std::move(item.hypotheses)); });
            },
            py::arg("log_probs"), py::arg("options"))
        .def(
            "start",
            [](const Decoder& decoder, const Options& options) {
                return std::make_unique<PyStream>(decoder.start(options.prepared));
            },
            py::arg("options"), py::keep_alive<0, 1>());
    register_stream(module);
    module.def("looks_like_probabilities", &looks_like_probabilities, py::arg("log_probs"));
}

}  // namespace longhand::python
