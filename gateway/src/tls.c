/*-------------------------------------------------------------------------
 *
 * tls.c
 *		The certificate and its key.
 *
 * libmicrohttpd speaks TLS by GnuTLS, and takes both files as text.  It says little about
 * what is wrong with them, so they are looked at here first.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include "config.h"
#include "log.h"
#include "secret_file.h"
#include "tls.h"

static char *certificate_text;
static size_t certificate_length;
static char *key_text;
static size_t key_length;

static bool
tls_complain(const char *setting, const char *fault)
{
	log_line(LOG_LEVEL_ERROR, "unusable_setting", LOG_TEXT("setting", setting), LOG_TEXT("message", fault));
	tls_free();
	return false;
}

static EVP_PKEY *
tls_read_key(void)
{
	BIO		   *text = BIO_new_mem_buf(key_text, (int) key_length);
	EVP_PKEY   *key = text ? PEM_read_bio_PrivateKey(text, NULL, NULL, (void *) "") : NULL;

	BIO_free(text);
	return key;
}

static X509 *
tls_read_certificate(void)
{
	BIO		   *text = BIO_new_mem_buf(certificate_text, (int) certificate_length);
	X509	   *certificate = text ? PEM_read_bio_X509(text, NULL, NULL, (void *) "") : NULL;

	BIO_free(text);
	return certificate;
}

/* The first certificate of the file is the gateway's own, and its key must be the other file. */
static bool
tls_files_fit(void)
{
	X509	   *certificate = tls_read_certificate();
	EVP_PKEY   *key = tls_read_key();
	bool		fits = certificate != NULL && key != NULL && X509_check_private_key(certificate, key) == 1;

	if (certificate == NULL)
		tls_complain("tls_certificate", "the file has no certificate in PEM");
	else if (key == NULL)
		tls_complain("tls_key", "the file has no private key in PEM without a password");
	else if (!fits)
		tls_complain("tls_key", "the key is not that of the first certificate in tls_certificate");
	X509_free(certificate);
	EVP_PKEY_free(key);
	return fits;
}

bool
tls_load(void)
{
	char		fault[FAULT_SIZE];

	tls_free();
	if (*config.tls_certificate == '\0' || *config.tls_key == '\0')
		return tls_complain("tls_certificate", "tls_certificate and tls_key go together");
	certificate_text = secret_file_read(config.tls_certificate, false, &certificate_length, fault);
	if (certificate_text == NULL)
		return tls_complain("tls_certificate", fault);
	key_text = secret_file_read(config.tls_key, true, &key_length, fault);
	if (key_text == NULL)
		return tls_complain("tls_key", fault);
	return tls_files_fit();
}

bool
tls_check(void)
{
	bool		good = (*config.tls_certificate == '\0' && *config.tls_key == '\0') || tls_load();

	tls_free();
	return good;
}

const char *
tls_certificate(void)
{
	return certificate_text;
}

const char *
tls_key(void)
{
	return key_text;
}

void
tls_free(void)
{
	secret_file_free(certificate_text, certificate_length);
	certificate_text = NULL;
	secret_file_free(key_text, key_length);
	key_text = NULL;
}
