// The Python module: conversion, checks, and letting go of the interpreter's lock; nothing else.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "longhand_decoder/decoder.h"

namespace longhand::python {

void register_language_model(pybind11::module_& module);
void register_results(pybind11::module_& module);
void register_decoder(pybind11::module_& module);

// For `register_decoder`: what C++ gives back, as Python sees it.
pybind11::object to_python(Hypothesis hypothesis);
pybind11::list to_python(std::vector<Hypothesis> hypotheses);

}  // namespace longhand::python
