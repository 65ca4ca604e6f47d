#include "bindings.h"

#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace py = pybind11;

namespace longhand::python {

namespace {

// As Python writes file names, which need not be UTF-8.
py::str path_of(const NgramLanguageModel& model) {
    const std::string& path = model.path();
    return py::reinterpret_steal<py::str>(
        PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<py::ssize_t>(path.size())));
}

}  // namespace

void register_language_model(py::module_& module) {
    py::register_exception<LanguageModelError>(module, "LanguageModelError", PyExc_ValueError);
    py::class_<NgramLanguageModel, std::shared_ptr<NgramLanguageModel>>(module, "NgramLanguageModel")
        .def(py::init([](const std::filesystem::path& path, bool mapped) {
                 const Unlocked unlocked;
                 return std::make_shared<NgramLanguageModel>(path.string(), mapped);
             }),
             py::arg("path"), py::kw_only(), py::arg("mapped") = true)
        .def_property_readonly("order", &NgramLanguageModel::order)
        .def_property_readonly("path", &path_of)
        .def("score", &NgramLanguageModel::score, py::arg("tokens"), py::arg("bos") = false,
             py::arg("eos") = false)
        .def("__contains__", &NgramLanguageModel::contains, py::arg("token"))
        .def("__len__", &NgramLanguageModel::vocabulary_size)
        .def("__repr__", [](const NgramLanguageModel& model) {
            return py::str("<NgramLanguageModel order {}, {} words, {}>")
                .format(model.order(), model.vocabulary_size(), path_of(model));
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
