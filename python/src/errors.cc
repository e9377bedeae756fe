#include "errors.h"

#include <string>

namespace switchyard::python {

nb::object to_exception(const Error& error) {
  nb::object make = nb::module_::import_("switchyard._errors").attr("make");
  const std::string_view code = to_string(error.code);
  return make(nb::str(code.data(), code.size()), nb::str(error.message.c_str(), error.message.size()));
}

void bind_errors(nb::module_&) {
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Raised& raised) {
      nb::object exception = to_exception(raised.error);
      PyErr_SetObject(exception.type().ptr(), exception.ptr());
    }
  });
}

}  // namespace switchyard::python
