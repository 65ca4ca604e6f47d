#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "bindings.h"

namespace py = pybind11;

namespace longhand::python {

namespace {

// Two Python classes with the same fields.
struct CharacterSpan : Span {};
struct WordSpan : Span {};

template <class T>
py::tuple fields(const T& span) {
    return py::make_tuple(span.text, span.first_frame, span.last_frame, span.confidence);
}

template <class T>
void register_span(py::module_& module, const char* name) {
    py::class_<T>(module, name)
        .def(py::init([](std::string text, int first_frame, int last_frame, double confidence) {
                 return T{{std::move(text), first_frame, last_frame, confidence}};
             }),
             py::kw_only(), py::arg("text"), py::arg("first_frame"), py::arg("last_frame"),
             py::arg("confidence"))
        .def_readonly("text", &T::text)
        .def_readonly("first_frame", &T::first_frame)
        .def_readonly("last_frame", &T::last_frame)
        .def_readonly("confidence", &T::confidence)
        .def("__eq__",
             [](const T& a, const py::object& b) {
                 return py::isinstance<T>(b) && fields(a).equal(fields(b.cast<const T&>()));
             })
        .def("__hash__", [](const T& a) { return py::hash(fields(a)); })
        .def("__repr__",
             [name](const T& a) {
                 return py::str("{}(text={!r}, first_frame={}, last_frame={}, confidence={:.4f})")
                     .format(name, a.text, a.first_frame, a.last_frame, a.confidence);
             })
        .def(py::pickle([](const T& a) { return fields(a); },
                        [](const py::tuple& f) {
                            return T{{f[0].cast<std::string>(), f[1].cast<int>(), f[2].cast<int>(),
                                      f[3].cast<double>()}};
                        }));
}

// A hypothesis whose spans become Python objects when they are first asked for: most callers never do.
class PyHypothesis {
  public:
    explicit PyHypothesis(Hypothesis value) : value_(std::move(value)) {}
    const Hypothesis& value() const { return value_; }
    py::tuple characters() { return spans<CharacterSpan>(value_.characters, characters_); }
    py::tuple words() { return spans<WordSpan>(value_.words, words_); }
    py::tuple fields() {
        return py::make_tuple(value_.text, value_.score, value_.acoustic_score, value_.word_model_score,
                              value_.character_model_score, value_.confidence, characters(), words());
    }

  private:
    template <class T>
    static py::tuple spans(const std::vector<Span>& values, py::object& cache) {
        if (!cache) {
            py::tuple made(values.size());
            for (std::size_t i = 0; i < values.size(); ++i) made[i] = py::cast(T{values[i]});
            cache = std::move(made);
        }
        return py::reinterpret_borrow<py::tuple>(cache);
    }

    Hypothesis value_;
    py::object characters_, words_;
};

template <class T>
std::vector<Span> read_spans(const py::iterable& items) {
    std::vector<Span> out;
    for (const py::handle item : items) out.push_back(item.cast<const T&>());
    return out;
}

PyHypothesis make(std::string text, double score, double acoustic, double word, double character,
                  double confidence, const py::iterable& characters, const py::iterable& words) {
    return PyHypothesis({std::move(text), score, acoustic, word, character, confidence,
                         read_spans<CharacterSpan>(characters), read_spans<WordSpan>(words)});
}

}  // namespace

void register_results(py::module_& module) {
    register_span<CharacterSpan>(module, "CharacterSpan");
    register_span<WordSpan>(module, "WordSpan");
    const auto number = [](double Hypothesis::* field) {
        return [field](const PyHypothesis& h) { return h.value().*field; };
    };
    py::class_<PyHypothesis>(module, "Hypothesis")
        .def(py::init(&make), py::kw_only(), py::arg("text"), py::arg("score"), py::arg("acoustic_score"),
             py::arg("word_model_score"), py::arg("character_model_score"), py::arg("confidence"),
             py::arg("characters") = py::tuple(), py::arg("words") = py::tuple())
        .def_property_readonly("text", [](const PyHypothesis& h) { return h.value().text; })
        .def_property_readonly("score", number(&Hypothesis::score))
        .def_property_readonly("acoustic_score", number(&Hypothesis::acoustic_score))
        .def_property_readonly("word_model_score", number(&Hypothesis::word_model_score))
        .def_property_readonly("character_model_score", number(&Hypothesis::character_model_score))
        .def_property_readonly("confidence", number(&Hypothesis::confidence))
        .def_property_readonly("characters", &PyHypothesis::characters)
        .def_property_readonly("words", &PyHypothesis::words)
        .def("__eq__",
             [](PyHypothesis& a, const py::object& b) {
                 return py::isinstance<PyHypothesis>(b) && a.fields().equal(b.cast<PyHypothesis&>().fields());
             })
        .def("__hash__", [](PyHypothesis& a) { return py::hash(a.fields()); })
        .def("__repr__",
             [](const PyHypothesis& h) {
                 return py::str("Hypothesis(text={!r}, score={:.3f}, confidence={:.3f})")
                     .format(h.value().text, h.value().score, h.value().confidence);
             })
        .def(py::pickle([](PyHypothesis& h) { return h.fields(); },
                        [](const py::tuple& f) {
                            return make(f[0].cast<std::string>(), f[1].cast<double>(), f[2].cast<double>(),
                                        f[3].cast<double>(), f[4].cast<double>(), f[5].cast<double>(),
                                        f[6].cast<py::iterable>(), f[7].cast<py::iterable>());
                        }));
}

py::object to_python(Hypothesis hypothesis) {
    return py::cast(PyHypothesis(std::move(hypothesis)));
}

py::list to_python(std::vector<Hypothesis> hypotheses) {
    py::list out;
    for (Hypothesis& hypothesis : hypotheses) out.append(to_python(std::move(hypothesis)));
    return out;
}

}  // namespace longhand::python
