#include "model/tokenizer_added.h"

#include <algorithm>

#include "model/unicode.h"

namespace switchyard::model {
namespace {

// Start of the last character before `end`.
std::size_t before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(utf8_step(text, before(text, text.size())).code);
}

bool starts_with_word(std::string_view text) { return !text.empty() && is_word(utf8_step(text, 0).code); }

// Where the white space begins that `text` has at its end, but not before `least`.
std::size_t strip_end(std::string_view text, std::size_t least) {
  std::size_t end = text.size();
  while (end > least) {
    const std::size_t begin = before(text, end);
    if (begin < least || !is_white_space(utf8_step(text, begin).code)) break;
    end = begin;
  }
  return end;
}

std::size_t skip_spaces(std::string_view text, std::size_t position) {
  while (position < text.size()) {
    const Utf8Step step = utf8_step(text, position);
    if (!is_white_space(step.code)) break;
    position += step.length;
  }
  return position;
}

}  // namespace

std::uint32_t AddedTokenFinder::child(std::uint32_t node, unsigned char byte) const {
  const auto& edges = nodes_[node].edges;
  const auto found =
      std::lower_bound(edges.begin(), edges.end(), byte,
                       [](const Edge& edge, unsigned char value) { return edge.byte < value; });
  return found != edges.end() && found->byte == byte ? found->node : 0;
}

void AddedTokenFinder::add(std::string_view content, const AddedToken& token) {
  if (content.empty()) return;
  std::uint32_t node = 0;
  for (char c : content) {
    const auto byte = static_cast<unsigned char>(c);
    std::uint32_t next = child(node, byte);
    if (next == 0) {
      next = static_cast<std::uint32_t>(nodes_.size());
      nodes_.emplace_back();
      auto& edges = nodes_[node].edges;
      const auto place =
          std::lower_bound(edges.begin(), edges.end(), byte,
                           [](const Edge& edge, unsigned char value) { return edge.byte < value; });
      edges.insert(place, Edge{byte, next});
    }
    node = next;
  }
  if (nodes_[node].token >= 0) return;  // the first of equal ones counts
  nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back({token.id, token.special, token.lstrip, token.rstrip, token.single_word});
  first_[static_cast<unsigned char>(content[0])] = true;
}

void AddedTokenFinder::find(std::string_view text, bool parse_special, std::vector<Segment>& out) const {
  std::size_t done = 0;
  for (std::size_t position = 0; position < text.size();) {
    if (!first_[static_cast<unsigned char>(text[position])]) {
      ++position;
      continue;
    }
    std::int32_t match = -1;
    std::size_t match_end = position;
    std::uint32_t node = 0;
    for (std::size_t i = position; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) break;
      if (nodes_[node].token >= 0) {
        match = nodes_[node].token;
        match_end = i + 1;
      }
    }
    if (match < 0) {
      ++position;
      continue;
    }
    // A match that is turned down is still stepped over, as Hugging Face does.
    std::size_t begin = position;
    std::size_t end = match_end;
    position = match_end;
    const Rule& rule = tokens_[static_cast<std::size_t>(match)];
    if (rule.special && !parse_special) continue;
    if (rule.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (begin < done) continue;  // swallowed by the token before, which strips to its right
    if (rule.lstrip) begin = strip_end(text.substr(0, begin), done);
    if (rule.rstrip) end = skip_spaces(text, end);
    if (done < begin) out.push_back({done, begin, -1});
    out.push_back({begin, end, rule.id});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
}

}  // namespace switchyard::model
