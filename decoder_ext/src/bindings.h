// The Python module: conversion, checks, and letting go of the interpreter's lock; nothing else.
#pragma once

#include <pybind11/pybind11.h>

#include <unistd.h>

#include <vector>

#include "longhand_decoder/decoder.h"

namespace longhand::python {

void register_language_model(pybind11::module_& module);
void register_results(pybind11::module_& module);
void register_decoder(pybind11::module_& module);

// Lets go of the interpreter's lock. Python up to 3.13 ends a thread that wants it back during shutdown by
// unwinding its stack, which py::gil_scoped_release takes for an exception that must not be: the whole
// process aborts. Here such a thread sleeps until the process is gone, as from Python 3.14 on.
class Unlocked {
  public:
    Unlocked() : thread_(PyEval_SaveThread()) {}
    ~Unlocked() {
        try {
            PyEval_RestoreThread(thread_);
        } catch (...) {
            while (true) pause();
        }
    }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

  private:
    PyThreadState* thread_;
};

// For `register_decoder`: what C++ gives back, as Python sees it.
pybind11::object to_python(Hypothesis hypothesis);
pybind11::list to_python(std::vector<Hypothesis> hypotheses);

}  // namespace longhand::python
