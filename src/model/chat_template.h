// Chat templates: the part of Jinja that checkpoints' templates use, with bounds.
//
// A template is code from outside: its output, its steps and its nesting are limited. Immutable; any thread.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "switchyard/result.h"

namespace switchyard::model {

class ChatTemplate {
 public:
  // Errors: corrupt (syntax, with line), unsupported (a construct that is not known).
  static Result<std::unique_ptr<const ChatTemplate>> parse(std::string_view source);
  ~ChatTemplate();

  // `context` holds what the template may name: messages, add_generation_prompt, bos_token, eos_token, tools,
  // ... Errors: invalid (raise_exception, undefined use), exhausted (limits). The ordered form is the one
  // that templates with tools want: `tojson` prints keys in their order.
  Result<std::string> render(const nlohmann::json& context) const;
  Result<std::string> render(const nlohmann::ordered_json& context) const;

  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);

 private:
  std::unique_ptr<const Program> program_;
};

}  // namespace switchyard::model
