// Errors of the engine as Python exceptions. The classes are Python's own (switchyard/_errors.py), one for
// each code; C++ throws Raised, which becomes an instance of the right one at the border.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>

#include "switchyard/result.h"

namespace switchyard::python {

namespace nb = nanobind;

struct Raised : std::exception {
  explicit Raised(Error what) : error(std::move(what)) {}
  const char* what() const noexcept override { return error.message.c_str(); }
  Error error;
};

template <class... Args>
[[noreturn]] void raise(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Raised(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// The value, or the error as an exception.
template <class T>
T unwrap(Result<T> result) {
  if (!result) throw Raised(std::move(result.error()));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// An instance of the class for this error's code. Needs the GIL.
nb::object to_exception(const Error& error);

void bind_errors(nb::module_& module);

}  // namespace switchyard::python
