#include "bindings.h"

#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace py = pybind11;

namespace longhand::python {

void register_language_model(py::module_& module) {
    py::register_exception<LanguageModelError>(module, "LanguageModelError", PyExc_ValueError);
    py::class_<NgramLanguageModel, std::shared_ptr<NgramLanguageModel>>(module, "NgramLanguageModel")
        .def(py::init([](const std::filesystem::path& path, bool mapped) {
                 const py::gil_scoped_release unlocked;
                 return std::make_shared<NgramLanguageModel>(path.string(), mapped);
             }),
             py::arg("path"), py::kw_only(), py::arg("mapped") = true)
        .def_property_readonly("order", &NgramLanguageModel::order)
        .def_property_readonly("path", &NgramLanguageModel::path)
        .def("score", &NgramLanguageModel::score, py::arg("tokens"), py::arg("bos") = false,
             py::arg("eos") = false)
        .def("__contains__", &NgramLanguageModel::contains, py::arg("token"))
        .def("__len__", &NgramLanguageModel::vocabulary_size)
        .def("__repr__", [](const NgramLanguageModel& model) {
            return "<NgramLanguageModel order " + std::to_string(model.order()) + ", " +
                   std::to_string(model.vocabulary_size()) + " words, " + model.path() + ">";
        });
    module.def(
        "tokenize_words", [](const std::string& text) { return tokenize_words(text); }, py::arg("text"));
}

}  // namespace longhand::python

PYBIND11_MODULE(_core, module) {
    longhand::python::register_language_model(module);
    longhand::python::register_results(module);
    longhand::python::register_decoder(module);
}
