#include "base/sha256.h"

#include <openssl/evp.h>

#include <fmt/ranges.h>

#include <fstream>
#include <vector>

namespace switchyard {

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) { EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr); }
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(context_->md, bytes.data(), bytes.size());
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest{};
  EVP_DigestFinal_ex(context_->md, digest.data(), nullptr);
  return digest;
}

std::string to_hex(const Sha256Digest& digest) { return fmt::format("{:02x}", fmt::join(digest, "")); }

Result<Sha256Digest> sha256_file(const std::filesystem::path& path,
                                 const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  std::error_code error;
  const std::uint64_t total = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) return fail(ErrorCode::not_found, "cannot read {}: {}", path.string(), error.message());
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  std::uint64_t done = 0;
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const auto count = static_cast<std::size_t>(file.gcount());
    hash.update(std::as_bytes(std::span(buffer.data(), count)));
    done += count;
    if (progress) progress(done, total);
  }
  if (file.bad()) return fail(ErrorCode::io, "reading {} failed after {} bytes", path.string(), done);
  return hash.finish();
}

}  // namespace switchyard
