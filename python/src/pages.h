// Lists of pages from Python.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <vector>

namespace switchyard::python {

// From an array of whole numbers (buffer protocol, DLPack), copied in one go, or from any sequence of ints.
// `what` names it in errors. Raises Invalid, OutOfRange (negative, or above 32 bits, or too many).
std::vector<std::uint32_t> read_pages(nanobind::handle object, const char* what);

}  // namespace switchyard::python
